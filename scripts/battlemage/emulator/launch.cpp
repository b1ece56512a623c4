#include "launch.hpp"

#include "poison.hpp"
#include "thread.hpp"
#include "workers.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>

namespace xe2 {
namespace {

constexpr std::uint8_t DEFINED = 0xff, GARBAGE = 0xA5;
constexpr std::uint64_t MOST_JUMPS = 1ull << 28; // back, of a thread between barriers
constexpr int THREAD_ARGUMENTS = 64;             // bytes: local ids
constexpr double TURN = 50;                      // cycles that a thread may be ahead of the others
// Of a B70: Xe cores, vector engines of each, bytes of team memory of each. An engine has 1,024 registers.
constexpr int CORES = 32, ENGINES = 8, ENGINE_REGISTERS = 1024, CORE_TEAM_MEMORY = 128 << 10;

/// How many work-groups the card has room for.
std::uint32_t groups_of_a_round(const Kernel &kernel, int threads) {
    int of_core = ENGINES * (ENGINE_REGISTERS / kernel.registers) / threads;
    if (kernel.team_memory)
        of_core = std::min(of_core, CORE_TEAM_MEMORY / kernel.team_memory);
    return CORES * std::max(of_core, 1);
}

std::vector<std::uint8_t> with_local_ids(const Launch &launch, int threads) {
    std::vector<std::uint8_t> all(launch.arguments);
    all.resize(launch.arguments.size() + std::size_t(threads) * THREAD_ARGUMENTS);
    for (int i = 0; i < threads; ++i) {
        const std::uint32_t x = launch.team[0], y = launch.team[1];
        const std::uint16_t ids[3] = {std::uint16_t(i % x), std::uint16_t(i / x % y), std::uint16_t(i / x / y)};
        std::memcpy(all.data() + launch.arguments.size() + i * THREAD_ARGUMENTS, ids, sizeof ids);
    }
    return all;
}

/// Hardware threads, kept by each thread of the host from launch to launch.
Thread *thread_storage(int count) {
    thread_local std::unique_ptr<Thread, decltype(&std::free)> storage(nullptr, std::free);
    thread_local int held = 0;
    if (held < count) {
        storage.reset(static_cast<Thread *>(std::aligned_alloc(64, sizeof(Thread) * count)));
        std::memset(static_cast<void *>(storage.get()), GARBAGE, sizeof(Thread) * count);
        held = count;
    }
    return storage.get();
}

/// What all workers of a launch share.
struct Shared {
    const Launch &launch;
    const Memory &memory;
    const Options &options;
    Registers *registers;
    const std::vector<std::uint8_t> arguments;
    std::vector<std::uint32_t> order; // of the groups, where it is not that of their numbers
    LaunchTrace trace;
    SecondCache cache;
    Arrivals arrivals;
    std::atomic<std::uint32_t> next{0};
    std::uint32_t end = 0; // of the groups that run now
    std::atomic<bool> failed{false};
};

/// Runs groups one after the other.
class Worker {
  public:
    Worker(Shared &shared, Counts &counts)
        : shared_(shared), kernel_(*shared.launch.kernel), counts_(counts), checks_(shared.options.checks),
          group_{kernel_, shared.memory, shared.arguments, {}, {}} {
        const auto &team = shared.launch.team;
        count_ = int(team[0] * team[1] * team[2]);
        counts_.executed.resize(kernel_.code.size());
        group_.team.resize(kernel_.team_memory, checks_ != 0);
        if (checks_ & (RACES | LINES))
            group_.trace.launch = &shared.trace;
        group_.arrivals = &shared.arrivals;
        threads_ = thread_storage(count_);
        std::fill(group_.team.bytes.begin(), group_.team.bytes.end(), GARBAGE);
        boards_.resize(checks_ & LINES ? count_ : 0);
        turns_.resize(count_);
        std::iota(turns_.begin(), turns_.end(), 0);
    }

    /// Lines that its groups were the first to ask for.
    SecondCache take_asked() { return group_.cache.take_asked(); }

    void run() {
        for (std::uint32_t i; !shared_.failed && (i = shared_.next++) < shared_.end;)
            run_group(shared_.order.empty() ? i : shared_.order[i]);
        counts_.masked_bytes[0] += group_.masked_bytes[0];
        counts_.masked_bytes[1] += group_.masked_bytes[1];
    }

  private:
    Shared &shared_;
    const Kernel &kernel_;
    Counts &counts_;
    const unsigned checks_;
    Group group_;
    int count_ = 0;
    Thread *threads_ = nullptr;
    std::vector<int> turns_;
    std::vector<Scoreboard> boards_; // of the threads
    const Thread *told_ = nullptr;   // the one of the timeline

    void run_group(std::uint32_t index) {
        group_.index = index;
        told_ = told_thread(shared_.options.timeline);
        group_.team.begin(checks_ & POISON ? 0 : DEFINED);
        group_.cache.begin(&shared_.cache);
        if (group_.trace.launch)
            group_.trace.begin(index, count_);
        for (int i = 0; i < count_; ++i)
            begin(threads_[i], i);
        std::mt19937_64 random(shared_.options.seed * 0x9e3779b97f4a7c15ull + index);
        for (int left = count_; left;) {
            if (shared_.options.seed)
                std::shuffle(turns_.begin(), turns_.end(), random);
            const int ended = run_to_barrier();
            left -= ended;
            if (ended && left)
                throw Fault(std::to_string(left) + " of " + std::to_string(count_) +
                            " threads wait at a barrier that the others never reach");
            group_.team.barrier();
            group_.trace.barrier();
            pass_barrier(left);
        }
        if (group_.trace.launch)
            group_.trace.end();
        if (shared_.registers)
            for (int i = 0; i < count_; ++i)
                shared_.registers->end(threads_[i], index);
        ++counts_.groups;
        counts_.threads += count_;
    }

    const Thread *told_thread(const Timeline &timeline) const {
        const bool here = !timeline.kernel.empty() && group_.index == timeline.group && int(timeline.thread) < count_ &&
                          kernel_.name.find(timeline.kernel) != std::string::npos;
        return here ? &threads_[timeline.thread] : nullptr;
    }

    /// All threads wait for the last one, or have ended.
    void pass_barrier(int left) {
        Cycles last{};
        for (const Scoreboard &board : boards_)
            last = later(last, board.now());
        for (Scoreboard &board : boards_)
            if (left)
                board.pass_barrier(last);
            else
                counts_.thread_cycles += board.now();
        if (!left)
            counts_.longest_cycles = later(counts_.longest_cycles, last);
    }

    /// Each thread up to the next barrier or its end; how many have ended.
    int run_to_barrier() {
        for (const int i : turns_)
            threads_[i].jumps_left = MOST_JUMPS;
        if (checks_ & LINES)
            run_timed_to_barrier();
        else
            for (const int i : turns_)
                run_untimed(threads_[i]);
        return int(std::count_if(turns_.begin(), turns_.end(), [&](int i) { return threads_[i].ended; }));
    }

    void run_untimed(Thread &thread) {
        if (checks_ & POISON)
            run<&Instruction::checked, true>(thread);
        else if (checks_)
            run<&Instruction::checked, false>(thread);
        else
            run<&Instruction::run, false>(thread);
    }

    template <Handler Instruction::*HANDLER, bool FOLLOWS_POISON> void run(Thread &thread) {
        std::uint64_t *const executed = counts_.executed.data();
        const Instruction *const code = kernel_.code.data();
        std::uint64_t count = 0;
        for (const Instruction *in = thread.next; in; ++count) {
            ++executed[in - code];
            if (FOLLOWS_POISON)
                follow_poison(thread, *in);
            in = (in->*HANDLER)(thread, in);
        }
        thread.executed += count;
        counts_.longest_thread = std::max(counts_.longest_thread, thread.executed);
    }

    /// The thread whose next instruction begins first runs, so that lines are asked for in the order of times.
    void run_timed_to_barrier() {
        const auto time = [&](int i) { return boards_[i].now()[EXPECTED]; };
        const auto later_than = [&](int a, int b) { return time(a) > time(b); };
        std::vector<int> running = turns_;
        std::make_heap(running.begin(), running.end(), later_than);
        while (!running.empty()) {
            std::pop_heap(running.begin(), running.end(), later_than);
            const int i = running.back();
            const double until = running.size() > 1 ? time(running.front()) + TURN : HUGE_VAL;
            if (run_timed(threads_[i], until))
                running.pop_back();
            else
                std::push_heap(running.begin(), running.end(), later_than);
        }
    }

    /// Up to a time, or to a barrier or its end: then true.
    bool run_timed(Thread &thread, double until) {
        Scoreboard &board = *thread.scoreboard;
        for (const Instruction *in = thread.next, *next; in; in = next) {
            if (board.now()[EXPECTED] > until) {
                thread.next = in;
                return false;
            }
            ++counts_.executed[in - kernel_.code.data()];
            ++thread.executed;
            if (checks_ & POISON)
                follow_poison(thread, *in);
            board.start(*in);
            if (&thread == told_)
                std::fprintf(stderr, "%.0f %s\n", board.issued()[EXPECTED], in->text.c_str());
            next = in->checked(thread, in);
            if (in->opcode == Opcode::GOTO) // a card executes the inside of the macro that it jumps over
                for (const Instruction *inside = in + 1; inside < next; ++inside) {
                    board.finish(*(inside - 1), inside);
                    board.start(*inside);
                }
            board.finish(in->opcode == Opcode::GOTO && next > in ? *(next - 1) : *in, next);
        }
        counts_.longest_thread = std::max(counts_.longest_thread, thread.executed);
        return true;
    }

    void begin(Thread &t, int index) {
        t.group = &group_;
        t.next = kernel_.code.data();
        t.index = index;
        t.signalled = t.ended = false;
        t.executed = 0;
        t.scoreboard = boards_.empty() ? nullptr : &boards_[index];
        if (t.scoreboard)
            t.scoreboard->begin();
        if (checks_) { // what registers held before is unknown
            std::memset(t.bytes, GARBAGE, sizeof t.bytes);
            std::memset(t.defined, checks_ & POISON ? 0 : DEFINED, sizeof t.defined);
            std::memset(t.defined, DEFINED, 32); // r0's first half
            std::memset(t.defined + CR0, DEFINED, 4);
        }
        const auto &groups = shared_.launch.groups;
        const std::uint32_t i = group_.index, x = i % groups[0], y = i / groups[0] % groups[1],
                            z = i / groups[0] / groups[1];
        const std::uint32_t header[8] = {0, x, std::uint32_t(index) | std::uint32_t(count_) << 24, 0, 0, 0, y, z};
        std::memcpy(t.bytes, header, sizeof header);
        poke(t.bytes + CR0, std::uint32_t(0));
        if (shared_.registers)
            shared_.registers->begin(t, group_.index);
    }
};

std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed, std::uint64_t launch) {
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(seed + 0x2545f4914f6cdd1dull * launch);
    std::shuffle(order.begin(), order.end(), random);
    return order;
}

/// Groups `next` to `end` on all cores; why they failed, or nothing.
std::string run_round(Shared &shared, Counts &counts) {
    std::mutex merging;
    std::string failure;
    SecondCache asked;
    on_all_cores(shared.end - shared.next, [&] {
        Counts own;
        SecondCache lines;
        std::string why;
        try {
            Worker worker(shared, own);
            worker.run();
            lines = worker.take_asked();
        } catch (const std::exception &error) {
            shared.failed = true;
            why = error.what();
        }
        const std::lock_guard<std::mutex> guard(merging);
        if (failure.empty())
            failure = why;
        asked.merge(lines);
        counts.add(own);
    });
    shared.cache.merge(asked);
    return failure;
}

} // namespace

void Counts::add(const Counts &own) {
    groups += own.groups;
    threads += own.threads;
    longest_thread = std::max(longest_thread, own.longest_thread);
    thread_cycles += own.thread_cycles;
    longest_cycles = later(longest_cycles, own.longest_cycles);
    for (int i = 0; i < 2; ++i)
        masked_bytes[i] += own.masked_bytes[i];
    for (std::size_t i = 0; i < own.executed.size(); ++i)
        executed[i] += own.executed[i];
}

void execute(const Launch &launch, const Memory &memory, const Options &options, Counts &counts) {
    execute(launch, memory, options, counts, nullptr);
}

void execute(const Launch &launch, const Memory &memory, const Options &options, Counts &counts, Registers *registers) {
    const auto began = std::chrono::steady_clock::now();
    const int threads = int(launch.team[0] * launch.team[1] * launch.team[2]);
    const std::uint32_t groups = launch.groups[0] * launch.groups[1] * launch.groups[2];
    Shared shared{launch, memory, options, registers, with_local_ids(launch, threads), {}};
    shared.trace.finds_races = options.checks & RACES;
    shared.trace.counts_lines = options.checks & LINES;
    if (options.seed)
        shared.order = shuffled(groups, options.seed, counts.launches);
    counts.executed.resize(launch.kernel->code.size());

    std::string failure;
    // Rounds one after the other, so that what the second cache has does not depend on chance.
    const std::uint32_t round = options.checks & LINES ? groups_of_a_round(*launch.kernel, threads) : groups;
    for (std::uint32_t begin = 0; begin < groups && failure.empty(); begin += round) {
        shared.next = begin;
        shared.end = std::min(begin + round, groups);
        failure = run_round(shared, counts);
    }
    if (failure.empty() && (options.checks & RACES))
        failure = shared.trace.race();
    if (!failure.empty())
        throw Fault(launch.kernel->name + " " + failure);
    if (options.checks & LINES) {
        counts.lines[0] += shared.trace.lines(Touch::READ);
        counts.lines[1] += shared.trace.lines(Touch::WRITE);
        counts.group_lines += shared.trace.group_lines();
    }
    ++counts.launches;
    counts.nanoseconds += (std::chrono::steady_clock::now() - began).count();
}

} // namespace xe2
