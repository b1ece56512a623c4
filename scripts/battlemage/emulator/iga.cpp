#include "iga.hpp"

#include "instruction.hpp"

#include <dlfcn.h>

namespace xe2 {
namespace {

// The library's C interface as far as it is used here; its packages bring no header.
struct ContextOptions {
    std::size_t bytes;
    int platform;
};
struct DisassembleOptions {
    std::uint32_t bytes, format, reserved[2], decoder, first_offset;
};
constexpr int XE2 = 2 << 24; // version 2.0 of its "XE" series
enum { NUMERIC_LABELS = 1, HEX_FLOATS = 4, OFFSETS = 8 };

using Create = int (*)(const ContextOptions *, void **);
using Release = int (*)(void *);
using Disassemble = int (*)(void *, const DisassembleOptions *, const void *, std::uint32_t,
                            const char *(*)(std::int32_t, void *), void *, char **);

template <class F> F function(const char *name) {
    static void *const library = dlopen("libiga64.so.2", RTLD_NOW | RTLD_LOCAL);
    void *const found = library ? dlsym(library, name) : nullptr;
    if (!found)
        throw Fault(std::string("Intel's assembler library libiga64.so.2 is missing: ") + dlerror());
    return reinterpret_cast<F>(found);
}

} // namespace

std::string disassemble(const std::uint8_t *code, std::size_t bytes) {
    static const auto create = function<Create>("iga_context_create");
    static const auto release = function<Release>("iga_context_release");
    static const auto text_of = function<Disassemble>("iga_context_disassemble");
    const ContextOptions options{sizeof options, XE2};
    const DisassembleOptions format{sizeof format, NUMERIC_LABELS | HEX_FLOATS | OFFSETS, {}, 0, 0};
    void *context = nullptr;
    char *text = nullptr;
    create(&options, &context);
    const int status = text_of(context, &format, code, std::uint32_t(bytes), nullptr, nullptr, &text);
    const std::string result = text ? text : "";
    release(context);
    if (status != 0)
        throw Fault("Intel's assembler library cannot read this machine code (status " + std::to_string(status) + ")");
    return result;
}

} // namespace xe2
