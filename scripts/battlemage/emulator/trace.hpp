// What the threads of a launch do to global memory, and whether it is in order where two of them touch one byte.
//
// Order comes from three things: a thread's own sequence, a barrier of its work-group (for what was stored and fenced
// before it), and a hand-over between groups: store, fence, atomic operation there; atomic operation on the same
// address later, fence that drops the first cache's content, load here.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace xe2 {

struct Instruction;

enum class Touch : std::uint8_t { READ, WRITE, ATOMIC };

struct Access {
    std::uint64_t begin, end;
    std::uint32_t group, interval, sequence;        // barriers passed by the group; the thread's own count
    std::uint32_t fenced_interval, fenced_sequence; // from when on others may be told; never until it is fenced
    std::uint16_t thread;
    Touch touch;
    const Instruction *in;
};

/// An atomic operation: what its thread's group has done before is handed on, what earlier ones handed on is taken.
struct HandOver {
    std::uint16_t thread;
    std::uint32_t interval, sequence;             // of the atomic operation
    std::uint32_t taken_interval, taken_sequence; // of the fence behind it
    std::uint64_t address;
    std::size_t place; // in the address's history
};

class LaunchTrace;

/// What one work-group does.
class GroupTrace {
  public:
    LaunchTrace *launch = nullptr; // null: nothing is recorded
    void begin(std::uint32_t group, int threads);
    void access(Touch touch, int thread, std::uint64_t address, std::size_t bytes, const Instruction *in);
    /// Before the operation itself, under the launch's lock.
    void atomic(int thread, std::uint64_t address, std::size_t bytes, const Instruction *in);
    void fence(int thread, bool evicts);
    void barrier() { ++interval_; }
    /// Give everything to the launch.
    void end();

  private:
    struct PerThread {
        std::uint32_t sequence = 0;
        std::vector<std::size_t> unfenced; // places in accesses_
        std::vector<std::size_t> untaken;  // places in hand_overs_
    };
    std::uint32_t group_ = 0, interval_ = 0;
    std::vector<PerThread> threads_;
    std::vector<Access> accesses_;
    std::vector<HandOver> hand_overs_;
    friend class LaunchTrace;
};

/// What all work-groups of a launch do.
class LaunchTrace {
  public:
    bool finds_races = true, counts_lines = false; // what it is for
    std::mutex atomics;
    /// The first two accesses that no order is between, in a line; empty if there are none.
    std::string race() const;
    /// Distinct lines of 64 bytes that were read and that were written.
    std::uint64_t lines(Touch touch) const;
    /// Those that each work-group read or wrote, added up.
    std::uint64_t group_lines() const { return group_lines_; }

  private:
    struct HandedOn {
        std::uint32_t group;
        std::uint16_t thread;
        std::uint32_t interval, sequence;
    };
    std::mutex groups_;
    std::vector<Access> reads_, writes_;
    std::uint64_t group_lines_ = 0;
    std::unordered_map<std::uint32_t, std::vector<HandOver>> hand_overs_; // by group
    std::unordered_map<std::uint64_t, std::deque<HandedOn>> histories_;   // by address, guarded by `atomics`
    bool ordered(const Access &a, const Access &b) const;
    friend class GroupTrace;
};

} // namespace xe2
