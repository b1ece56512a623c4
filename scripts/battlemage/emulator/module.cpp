// A module in the driver's native format: an ELF file whose section .ze_info describes the kernels, as YAML.
#include "instruction.hpp"

#include <cstring>
#include <map>
#include <sstream>

namespace xe2 {
namespace {

struct Section {
    const std::uint8_t *bytes;
    std::size_t size;
};

class Elf {
  public:
    Elf(const std::uint8_t *bytes, std::size_t size) : bytes_(bytes), size_(size) {
        if (size < 64 || std::memcmp(bytes, "\177ELF\2", 5) != 0)
            throw Fault("the driver's native module is no 64-bit ELF file");
        const auto headers = at<std::uint64_t>(0x28);
        const int count = at<std::uint16_t>(0x3c), strings = at<std::uint16_t>(0x3e);
        const auto names = at<std::uint64_t>(headers + 64 * strings + 24);
        for (int i = 1; i < count; ++i) {
            const std::uint64_t header = headers + 64 * i;
            const auto *name = reinterpret_cast<const char *>(bytes + names + at<std::uint32_t>(header));
            const auto offset = at<std::uint64_t>(header + 24), length = at<std::uint64_t>(header + 32);
            if (at<std::uint32_t>(header + 4) != NOT_IN_FILE && offset + length > size)
                throw Fault("the driver's native module is cut off");
            sections_[name] = {bytes + offset, length};
        }
    }
    Section section(const std::string &name) const {
        const auto found = sections_.find(name);
        if (found == sections_.end())
            throw Fault("the driver's native module has no section " + name);
        return found->second;
    }

  private:
    static constexpr std::uint32_t NOT_IN_FILE = 8;
    const std::uint8_t *bytes_;
    std::size_t size_;
    std::map<std::string, Section> sections_;
    template <class T> T at(std::uint64_t offset) const {
        if (offset + sizeof(T) > size_)
            throw Fault("the driver's native module is cut off");
        T value;
        std::memcpy(&value, bytes_ + offset, sizeof value);
        return value;
    }
};

/// "  - key:   value" as its indentation, key and value.
struct Line {
    std::size_t indentation = 0;
    bool begins_item = false;
    std::string key, value;

    explicit Line(const std::string &text) {
        indentation = text.find_first_not_of(' ');
        if (indentation == std::string::npos)
            return;
        begins_item = text[indentation] == '-';
        const auto first = text.find_first_not_of(" -"), colon = text.find(':');
        if (first == std::string::npos || colon == std::string::npos)
            return;
        key = text.substr(first, colon - first);
        const auto begin = text.find_first_not_of(' ', colon + 1);
        value = begin == std::string::npos ? "" : text.substr(begin);
    }
};

std::vector<std::shared_ptr<Kernel>> described(const std::string &info) {
    std::vector<std::shared_ptr<Kernel>> kernels;
    bool arguments = false;
    std::istringstream lines(info);
    for (std::string text; std::getline(lines, text);) {
        const Line line(text);
        if (line.key == "kernels_misc_info" && line.indentation == 0)
            break;
        if (line.key == "name" && line.begins_item && line.indentation == 2) {
            kernels.push_back(std::make_shared<Kernel>());
            kernels.back()->name = line.value;
        }
        if (kernels.empty())
            continue;
        Kernel &kernel = *kernels.back();
        const auto number = [&] { return std::stoi(line.value); };
        if (line.indentation == 4 && !line.begins_item)
            arguments = line.key == "payload_arguments";
        if (line.key == "slm_size")
            kernel.team_memory = number();
        else if (line.key == "grf_count")
            kernel.registers = number();
        else if (line.key == "spill_size" && number() > 0)
            throw Fault(kernel.name + " spills registers, which is not emulated");
        if (!arguments)
            continue;
        if (line.key == "arg_type")
            kernel.arguments.push_back({line.value});
        else if (!kernel.arguments.empty()) {
            Argument &argument = kernel.arguments.back();
            if (line.key == "offset")
                argument.offset = number();
            else if (line.key == "size")
                argument.size = number();
            else if (line.key == "arg_index")
                argument.index = number();
            else if (line.key == "source_offset")
                argument.source_offset = number();
        }
    }
    return kernels;
}

/// A kernel begins by loading its thread's own arguments from behind the kernel's: the fourth instruction adds their
/// place.
int place_of_thread_arguments(const Kernel &kernel) {
    const bool known = kernel.code.size() > 5 && kernel.code[3].opcode == Opcode::ADD &&
                       kernel.code[3].source[1].form == Form::IMMEDIATE && kernel.code[5].opcode == Opcode::SEND &&
                       kernel.code[5].send.space == Space::ARGUMENTS;
    if (!known)
        throw Fault(kernel.name + " does not begin as kernels do that take their arguments from memory");
    return int(kernel.code[3].source[1].integer);
}

} // namespace

std::vector<std::shared_ptr<Kernel>> read_module(const std::uint8_t *elf, std::size_t bytes) {
    const Elf module(elf, bytes);
    const Section info = module.section(".ze_info");
    auto kernels = described(std::string(reinterpret_cast<const char *>(info.bytes), info.size));
    for (const auto &kernel : kernels) {
        const Section code = module.section(".text." + kernel->name);
        try {
            decode(*kernel, code.bytes, code.size);
        } catch (const Fault &why) {
            throw Fault(kernel->name + " " + why.what());
        }
        kernel->argument_bytes = place_of_thread_arguments(*kernel);
        for (const Argument &argument : kernel->arguments)
            if (argument.offset + argument.size > kernel->argument_bytes)
                throw Fault(kernel->name + " has an argument behind those of its threads");
    }
    return kernels;
}

} // namespace xe2
