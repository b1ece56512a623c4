// Launches: all work-groups of a kernel, on all cores of the host.
#pragma once

#include "group.hpp"

#include <array>
#include <mutex>

namespace xe2 {

/// A thread whose instructions are written to standard error, each behind the cycle in which it begins.
struct Timeline {
    std::string kernel; // a part of its name; empty: there is no such thread
    std::uint32_t group = 0, thread = 0;
};

/// How launches are executed; the same for all of a process.
struct Options {
    unsigned checks = 0;    // bits of Checks
    std::uint64_t seed = 0; // of the order of groups, and of threads between barriers; 0: as they are numbered
    Timeline timeline;      // with Checks::LINES
};

/// What a kernel has done so far, over all its launches.
struct Counts {
    std::uint64_t launches = 0, groups = 0, threads = 0, nanoseconds = 0;
    std::uint64_t longest_thread = 0;         // instructions of the thread that executes the most in a launch
    std::vector<std::uint64_t> executed;      // times, an entry for each instruction of the kernel
    std::uint64_t masked_bytes[2] = {};       // loaded and stored by messages with an address a channel
    std::uint64_t lines[2] = {};              // with Checks::LINES: distinct lines of 64 bytes read and written
    Cycles thread_cycles{}, longest_cycles{}; // with Checks::LINES: of all threads; of the one that takes the longest
    std::uint64_t group_lines = 0;            // the same: those of each work-group by itself, added up

    /// What one core of the host has counted of a launch.
    void add(const Counts &own);
};

struct Launch {
    std::shared_ptr<Kernel> kernel;
    std::array<std::uint32_t, 3> groups{1, 1, 1}, team{1, 1, 1};
    std::vector<std::uint8_t> arguments; // Kernel::argument_bytes
};

/// Runs a kernel to its end; a Fault names the kernel. One launch at a time.
void execute(const Launch &launch, const Memory &memory, const Options &options, Counts &counts);

/// What is different for a piece of code that is no kernel: registers as given, and given back.
struct Registers {
    virtual ~Registers() = default;
    virtual void begin(Thread &thread, std::uint32_t group) = 0;
    virtual void end(const Thread &thread, std::uint32_t group) = 0;
};
void execute(const Launch &launch, const Memory &memory, const Options &options, Counts &counts, Registers *registers);

} // namespace xe2
