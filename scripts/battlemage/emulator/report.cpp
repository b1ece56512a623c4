#include "report.hpp"

#include <map>
#include <sstream>

namespace xe2 {
namespace {

std::string message_of(const Instruction &in) {
    const Send &send = in.send;
    const std::string space = send.space == Space::TEAM        ? "team"
                              : send.space == Space::ARGUMENTS ? "argument"
                                                               : "global";
    switch (send.message) {
    case Message::LOAD:
        return in.target.offset == NULL_REGISTER ? space + "_prefetch" : space + "_load";
    case Message::STORE:
        return space + "_store";
    case Message::ATOMIC_INC:
    case Message::ATOMIC_ADD:
        return space + "_atomic";
    case Message::FENCE:
        return space + "_fence";
    case Message::SIGNAL:
        return "barrier";
    default:
        return "end";
    }
}

/// The bytes of memory that one message moves; those with an address a channel are counted as they run.
std::uint64_t bytes_of(const Instruction &in) {
    const Send &send = in.send;
    const bool moves = send.message == Message::LOAD || send.message == Message::STORE;
    if (!moves || (!send.block && send.space == Space::GLOBAL && in.target.offset != NULL_REGISTER))
        return 0;
    return std::uint64_t(send.memory_bytes) * send.count * (send.block ? 1 : in.lanes);
}

/// How often each instruction ran on the card: the insides of IEEE macros, which are skipped here, run there.
std::vector<std::uint64_t> executed_on_card(const Kernel &kernel, const Counts &counts) {
    std::vector<std::uint64_t> executed = counts.executed;
    for (std::size_t i = 0; i < executed.size(); ++i)
        if (kernel.code[i].opcode == Opcode::GOTO)
            for (std::size_t j = i + 1; j < executed.size() && kernel.code[j].offset < kernel.code[i].jump_offset; ++j)
                executed[j] += executed[i];
    return executed;
}

void write(std::ostringstream &out, const char *name, const std::map<std::string, std::uint64_t> &values) {
    out << ", \"" << name << "\": {";
    const char *comma = "";
    for (const auto &[key, value] : values) {
        out << comma << '"' << key << "\": " << value;
        comma = ", ";
    }
    out << '}';
}

} // namespace

std::string report_of(const Kernel &kernel, const Counts &counts) {
    const std::vector<std::uint64_t> executed = executed_on_card(kernel, counts);
    std::map<std::string, std::uint64_t> pipes, slots, messages, bytes;
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < executed.size(); ++i) {
        const Instruction &in = kernel.code[i];
        if (!executed[i])
            continue;
        total += executed[i];
        const char *const pipe = PIPE_NAMES[int(in.pipe)];
        pipes[pipe] += executed[i];
        slots[pipe] += executed[i] * in.slots;
        if (in.opcode != Opcode::SEND)
            continue;
        messages[message_of(in)] += executed[i];
        if (const std::uint64_t each = bytes_of(in))
            bytes[message_of(in)] += executed[i] * each;
    }
    static const char *const MASKED[] = {"global_load", "global_store"};
    for (int i = 0; i < 2; ++i)
        if (counts.masked_bytes[i])
            bytes[MASKED[i]] += counts.masked_bytes[i];
    std::ostringstream out;
    out << "{\"kernel\": \"" << kernel.name << "\", \"launches\": " << counts.launches
        << ", \"groups\": " << counts.groups << ", \"threads\": " << counts.threads
        << ", \"registers\": " << kernel.registers << ", \"team_memory_bytes\": " << kernel.team_memory
        << ", \"instructions\": " << total << ", \"longest_thread\": " << counts.longest_thread;
    write(out, "pipes", pipes);
    write(out, "slots", slots);
    write(out, "messages", messages);
    write(out, "bytes", bytes);
    if (counts.lines[0] || counts.lines[1]) {
        std::map<std::string, std::uint64_t> cycles, longest;
        for (int i = 0; i < CASES; ++i) {
            cycles[CASE_NAMES[i]] = std::uint64_t(counts.thread_cycles[i]);
            longest[CASE_NAMES[i]] = std::uint64_t(counts.longest_cycles[i]);
        }
        write(out, "thread_cycles", cycles);
        write(out, "longest_cycles", longest);
        out << ", \"lines_read\": " << counts.lines[0] << ", \"lines_written\": " << counts.lines[1]
            << ", \"group_lines\": " << counts.group_lines;
    }
    out << ", \"emulation_us\": " << counts.nanoseconds / 1000 << '}';
    return out.str();
}

} // namespace xe2
