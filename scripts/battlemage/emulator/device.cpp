#include "device.hpp"

#include "report.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <unistd.h>

namespace xe2 {
namespace {

constexpr int STATUS = 70;                      // of a process that the emulator ends
constexpr std::size_t LARGE = 64 << 20;         // bytes from which a write asks how much memory the host has left
constexpr std::size_t HOST_RESERVE = 256 << 20; // bytes that stay free
constexpr unsigned LAUNCHES = 64;               // between two looks at the memory that kernels have filled

std::uint64_t number_from(const char *variable) {
    const char *const text = std::getenv(variable);
    if (!text || !*text)
        return 0;
    char *end = nullptr;
    const std::uint64_t value = std::strtoull(text, &end, 10);
    if (*end)
        stop(std::string(variable) + " is \"" + text + "\" and should be a whole number");
    return value;
}

Timeline timeline_from_environment() {
    const char *const text = std::getenv("ARCMTP_EMULATOR_TIMELINE");
    Timeline timeline;
    char kernel[256], behind;
    if (!text || !*text)
        return timeline;
    if (std::sscanf(text, "%255[^:]:%u:%u%c", kernel, &timeline.group, &timeline.thread, &behind) != 3)
        stop(std::string("ARCMTP_EMULATOR_TIMELINE is \"") + text + "\" and should be KERNEL:GROUP:THREAD");
    timeline.kernel = kernel;
    return timeline;
}

unsigned checks_from_environment() {
    static const std::map<std::string, unsigned> NAMES{{"poison", POISON}, {"races", RACES}, {"lines", LINES}};
    const char *const text = std::getenv("ARCMTP_EMULATOR_CHECKS");
    unsigned checks = 0;
    std::string word;
    for (const char *c = text ? text : "";; ++c) {
        if (*c && *c != ',') {
            word += *c;
            continue;
        }
        if (const auto found = NAMES.find(word); found != NAMES.end())
            checks |= found->second;
        else if (!word.empty())
            stop("ARCMTP_EMULATOR_CHECKS has \"" + word + "\"; known are poison, races, lines");
        word.clear();
        if (!*c)
            return checks;
    }
}

Options options_from_environment() {
    Options options{checks_from_environment(), number_from("ARCMTP_EMULATOR_SEED"), timeline_from_environment()};
    if (!options.timeline.kernel.empty() && !(options.checks & LINES))
        stop("ARCMTP_EMULATOR_TIMELINE needs ARCMTP_EMULATOR_CHECKS=lines");
    return options;
}

std::size_t host_memory_left() {
    std::ifstream lines("/proc/meminfo");
    for (std::string word; lines >> word;)
        if (word == "MemAvailable:") {
            std::size_t kib = 0;
            lines >> kib;
            return kib << 10;
        }
    return ~std::size_t(0);
}

void must_fit_host(std::size_t bytes) {
    if (bytes < LARGE)
        return;
    const std::size_t left = host_memory_left();
    if (bytes + HOST_RESERVE > left)
        stop("the program writes " + std::to_string(bytes >> 20) + " MiB to the card's memory and this machine has " +
             std::to_string(left >> 20) + " MiB left");
}

} // namespace

void stop(const std::string &why) {
    std::fflush(nullptr);
    const char *const errors = std::getenv("ARCMTP_EMULATOR_ERRORS");
    const std::string line = "emulator: " + why + "\n";
    if (!errors || write(std::atoi(errors), line.data(), line.size()) < 0)
        std::fputs(line.c_str(), stderr);
    _exit(STATUS);
}

Device &Device::instance() {
    static Device &device = *[] {
        auto *made = new Device;
        made->options = options_from_environment();
        return made;
    }();
    return device;
}

void Device::add_module(const void *module, const std::vector<std::uint8_t> &binary) {
    modules[module] = read_module(binary.data(), binary.size());
}

std::uint8_t *Device::host(const void *address, std::size_t bytes, const char *what, std::uint8_t **defined) const {
    const auto at = reinterpret_cast<std::uint64_t>(address);
    const Allocation *const found = memory.find(at, bytes);
    if (defined)
        *defined = found && found->defined ? found->defined + (at - found->begin) : nullptr;
    if (found)
        return found->host + (at - found->begin);
    if (memory.overlaps(at, bytes))
        throw Fault(std::string(what) + " touches " + memory.describe(at, bytes));
    return reinterpret_cast<std::uint8_t *>(at); // the program's own memory, which Level Zero knows nothing of
}

void Device::append(const void *list, std::function<void()> work) {
    const auto found = recorded_.find(list);
    if (found == recorded_.end())
        work();
    else
        found->second.push_back(std::move(work));
}

void Device::run(const void *list) {
    const auto found = recorded_.find(list);
    if (found == recorded_.end())
        throw Fault("a command list that was not recorded here is to run");
    for (const auto &work : found->second)
        work();
}

Launch Device::launch(const KernelObject &object, std::array<std::uint32_t, 3> groups,
                      std::array<std::uint32_t, 3> team,
                      const std::function<const std::uint8_t *(int)> &argument) const {
    if (!object.kernel)
        throw Fault("a kernel that no module has brought is launched");
    Launch launch{object.kernel, groups, team, std::vector<std::uint8_t>(object.kernel->argument_bytes)};
    for (const Argument &a : object.kernel->arguments) {
        const void *from = nullptr;
        if (a.kind == "arg_bypointer" || a.kind == "arg_byvalue")
            from = argument(a.index) + a.source_offset;
        else if (a.kind == "group_count")
            from = groups.data();
        else if (a.kind == "local_size" || a.kind == "enqueued_local_size")
            from = team.data();
        else if (a.kind == "private_base_stateless" || a.kind == "global_id_offset")
            continue; // no kernel may use private memory; offsets are zero
        else
            throw Fault(object.kernel->name + " wants an argument of kind " + a.kind + ", which is not emulated");
        std::memcpy(launch.arguments.data() + a.offset, from, a.size);
    }
    return launch;
}

void Device::execute(const Launch &launch) {
    if (launches_++ % LAUNCHES == 0 && host_memory_left() < HOST_RESERVE)
        stop("the card's memory has filled that of this machine");
    auto &[kernel, counts] = counts_[launch.kernel->name];
    if (kernel != launch.kernel) { // the same name in another module: the same source, so the same code
        if (kernel && kernel->code.size() != launch.kernel->code.size())
            counts = {};
        kernel = launch.kernel;
    }
    xe2::execute(launch, memory, options, counts);
}

void Device::copy(void *to, const void *from, std::size_t bytes) {
    must_fit_host(bytes);
    std::uint8_t *to_defined = nullptr, *from_defined = nullptr;
    std::uint8_t *const target = host(to, bytes, "a copy", &to_defined);
    const std::uint8_t *const source = host(from, bytes, "a copy", &from_defined);
    std::memmove(target, source, bytes);
    if (to_defined && from_defined)
        std::memmove(to_defined, from_defined, bytes);
    else if (to_defined)
        std::memset(to_defined, 0xff, bytes);
}

void Device::fill(void *to, const std::vector<std::uint8_t> &pattern, std::size_t bytes) {
    must_fit_host(bytes);
    std::uint8_t *defined = nullptr;
    std::uint8_t *const target = host(to, bytes, "a fill", &defined);
    for (std::size_t i = 0; i < bytes; i += pattern.size())
        std::memcpy(target + i, pattern.data(), std::min(pattern.size(), bytes - i));
    if (defined)
        std::memset(defined, 0xff, bytes);
}

std::string Device::report() const {
    std::string text = "[";
    for (const auto &[name, entry] : counts_)
        if (entry.second.launches)
            text += (text.size() > 1 ? ",\n" : "\n") + report_of(*entry.first, entry.second);
    return text + "\n]\n";
}

} // namespace xe2
