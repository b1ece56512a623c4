// A work-group that runs, and the launch that it is part of.
#pragma once

#include "instruction.hpp"
#include "memory.hpp"
#include "scoreboard.hpp"
#include "team_memory.hpp"
#include "trace.hpp"

namespace xe2 {

/// What is looked at besides bounds, which always are: bits of `checks`.
enum Checks : unsigned { POISON = 1, RACES = 2, LINES = 4 };

struct Group {
    const Kernel &kernel;
    const Memory &memory;
    const std::vector<std::uint8_t> &arguments; // the kernel's, then 64 bytes a thread
    TeamMemory team;
    GroupTrace trace;
    FirstCache cache;
    Arrivals *arrivals = nullptr;
    std::uint32_t index = 0;
    const Allocation *last = nullptr;   // the allocation that was found last
    std::uint64_t masked_bytes[2] = {}; // loaded and stored by messages with an address a channel
};

} // namespace xe2
