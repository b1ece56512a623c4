// When the instructions of a thread would begin, were it alone on a vector engine: one after the other, each when what
// its annotation names has ended. Figures have three cases, which are computed side by side.
//
// What IGC's LatencyTable.h states is taken for all cases: results after 10 cycles (6 in an accumulator, 16 in a flag
// or address, 17 of the maths unit, 20 + repeat count of dpas), a jump 23, team memory 28 (more than 16 lanes 45), its
// fence 23, the first cache 45, a fence of memory at least 35. Each pipe takes a register a cycle, dpas 2 cycles a
// repeat.
#pragma once

#include "instruction.hpp"

#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace xe2 {

typedef double Cycles __attribute__((vector_size(4 * sizeof(double)))); // best, expected, worst; one is not used
inline Cycles later(Cycles a, Cycles b) { return a > b ? a : b; }
constexpr int CASES = 3, EXPECTED = 1;
constexpr const char *CASE_NAMES[CASES] = {"best", "expected", "worst"};

/// Lines of 64 bytes that the second cache has: those that work-groups of earlier rounds have asked for. A round is as
/// many groups as the card has room for. Groups of one round begin together and walk through what they share together:
/// each waits for memory as the foremost does. So times do not depend on which group runs first here.
using SecondCache = std::unordered_set<std::uint64_t>;

/// Lines that a work-group has asked for: the first time from memory or the second cache, then from the first cache,
/// which is taken to hold all of them. A prefetch asks like a load. What lies behind a fence that drops the lines was
/// written by other groups a moment ago, and is in the second cache.
class FirstCache {
  public:
    void begin(const SecondCache *behind);
    void drop();
    /// When a line is there that a thread asks for at `time`.
    Cycles line(std::uint64_t number, Cycles time);
    /// Lines that groups have asked for since the last call.
    SecondCache take_asked() { return std::exchange(asked_, {}); }

  private:
    const SecondCache *behind_ = nullptr;
    std::unordered_map<std::uint64_t, Cycles> arrivals_;
    SecondCache asked_;
    bool dropped_ = false;
};

/// When work-groups of a launch have counted themselves at an address.
class Arrivals {
  public:
    void count(std::uint64_t address, Cycles time);
    /// The latest of those at an address; nothing where no group has counted itself.
    Cycles latest(std::uint64_t address);

  private:
    std::mutex lock_;
    std::unordered_map<std::uint64_t, Cycles> latest_;
};

class Scoreboard {
  public:
    void begin();
    /// The next instruction begins as soon as it may.
    void start(const Instruction &in);
    /// It touches memory that all groups share.
    void touch(FirstCache &cache, std::uint64_t address, std::size_t bytes);
    /// It counts a work-group that arrives.
    void count(Arrivals &arrivals, std::uint64_t address);
    /// It stores to an address that all groups share: a counter is set back by the last group to arrive. Which one that
    /// is here is chance, and on the card it is the one that took the longest: it goes on when all have arrived.
    void store(Arrivals &arrivals, std::uint64_t address) { issued_ = later(issued_, arrivals.latest(address)); }
    /// It has begun, and `next` comes next.
    void finish(const Instruction &in, const Instruction *next);
    /// No instruction begins before `time` and what a barrier takes.
    void pass_barrier(Cycles time);
    Cycles now() const { return now_; }       // of the next instruction
    Cycles issued() const { return issued_; } // when the one under way began

  private:
    static constexpr int LATEST = 8, TOKENS = 32;
    Cycles now_, issued_, loaded_, stored_;
    Cycles free_[PIPES], ended_[IN_ORDER][LATEST]; // a pipe, for the next instruction; its latest results
    std::uint32_t begun_[IN_ORDER];
    Cycles written_[TOKENS], read_[TOKENS];

    Cycles result_of(const Instruction &in) const;
    Cycles message_of(const Instruction &in) const;
};

} // namespace xe2
