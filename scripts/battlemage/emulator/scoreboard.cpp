#include "scoreboard.hpp"

#include <algorithm>

namespace xe2 {
namespace {

// Guesses, but for 300 (Intel's GPU optimization guide: a miss), 200 and 30 (IGC's LatencyTable.h).
constexpr Cycles ISSUE{1, 1, 2}, MEMORY{300, 600, 1000}, SECOND_CACHE{200, 300, 500}, BARRIER{30, 60, 120};
constexpr double FLOAT = 10, ACCUMULATOR = 6, FLAG = 16, MATH = 17, MATH_SLOT = 4, DPAS = 20, DPAS_ROW = 2, JUMP = 23;
constexpr double TEAM = 28, WIDE_TEAM = 45, TEAM_FENCE = 23, FIRST_CACHE = 45, FENCE = 35;
constexpr double PAYLOAD = 8; // until a message has read its registers: IGC's arbitration of sends
constexpr int LINE = 64;

double occupancy_of(const Instruction &in) {
    return in.pipe == Pipe::MATH ? MATH_SLOT * in.slots : in.pipe == Pipe::DPAS ? DPAS_ROW * in.slots : in.slots;
}

} // namespace

void FirstCache::begin(const SecondCache *behind) {
    behind_ = behind;
    arrivals_.clear();
    dropped_ = false;
}

void FirstCache::drop() {
    arrivals_.clear();
    dropped_ = true;
}

Cycles FirstCache::line(std::uint64_t number, Cycles time) {
    const bool is_near = dropped_ || behind_->count(number);
    const Cycles first = time + (is_near ? SECOND_CACHE : MEMORY);
    const auto [entry, is_new] = arrivals_.try_emplace(number, first);
    if (is_new) {
        if (!is_near)
            asked_.insert(number);
        return first;
    }
    // Threads come one after the other here: an earlier one may have asked later.
    const Cycles before = entry->second, found = later(before, time + FIRST_CACHE);
    entry->second = before < first ? before : first;
    return found < first ? found : first;
}

void Arrivals::count(std::uint64_t address, Cycles time) {
    const std::lock_guard<std::mutex> guard(lock_);
    Cycles &latest = latest_[address];
    latest = later(latest, time);
}

Cycles Arrivals::latest(std::uint64_t address) {
    const std::lock_guard<std::mutex> guard(lock_);
    const auto found = latest_.find(address);
    return found == latest_.end() ? Cycles{} : found->second;
}

void Scoreboard::begin() { *this = Scoreboard{}; }

void Scoreboard::start(const Instruction &in) {
    const Annotation &a = in.annotation;
    Cycles time = later(now_, free_[int(in.pipe)]);
    if (a.distance) {
        const int own = int(in.pipe) < IN_ORDER ? 1 << int(in.pipe) : (1 << IN_ORDER) - 1;
        for (int pipe = 0; pipe < IN_ORDER; ++pipe)
            if ((a.pipes ? a.pipes : own) >> pipe & 1)
                time = later(time, ended_[pipe][(begun_[pipe] - a.distance) % LATEST]);
    }
    const std::uint32_t taken = a.written | (a.token >= 0 ? 1u << a.token : 0);
    for (int token = 0; (taken | a.read) >> token; ++token) {
        if (taken >> token & 1)
            time = later(time, written_[token]);
        if (a.read >> token & 1)
            time = later(time, read_[token]);
        if (token + 1 == TOKENS)
            break;
    }
    issued_ = loaded_ = time;
}

void Scoreboard::touch(FirstCache &cache, std::uint64_t address, std::size_t bytes) {
    for (std::uint64_t line = address / LINE; line <= (address + bytes - 1) / LINE; ++line)
        loaded_ = later(loaded_, cache.line(line, issued_));
}

void Scoreboard::count(Arrivals &arrivals, std::uint64_t address) { arrivals.count(address, issued_ + SECOND_CACHE); }

void Scoreboard::finish(const Instruction &in, const Instruction *next) {
    const int pipe = int(in.pipe);
    const Cycles result = in.pipe == Pipe::SEND ? message_of(in) : result_of(in);
    if (in.pipe == Pipe::SEND && in.send.message == Message::STORE && in.send.space == Space::GLOBAL)
        stored_ = later(stored_, result);
    now_ = issued_ + (in.pipe == Pipe::BRANCH && next != &in + 1 ? Cycles{} + JUMP : ISSUE);
    free_[pipe] = issued_ + occupancy_of(in);
    if (pipe < IN_ORDER)
        ended_[pipe][begun_[pipe]++ % LATEST] = result;
    if (in.annotation.token >= 0) {
        const Cycles read = issued_ + std::max(PAYLOAD, occupancy_of(in));
        // A token without a result, as of a store or prefetch, is free as soon as its operands have been read.
        written_[in.annotation.token] = in.target.offset == NULL_REGISTER && in.pipe == Pipe::SEND ? read : result;
        read_[in.annotation.token] = read;
    }
}

void Scoreboard::pass_barrier(Cycles time) { now_ = later(now_, time + BARRIER); }

Cycles Scoreboard::result_of(const Instruction &in) const {
    const bool flag = in.condition != Condition::NONE || in.target.offset >= A0;
    const double first = in.pipe == Pipe::DPAS     ? DPAS
                         : in.pipe == Pipe::MATH   ? MATH
                         : flag                    ? FLAG
                         : in.target.offset >= ACC ? ACCUMULATOR
                                                   : FLOAT;
    return issued_ + first +
           (in.pipe == Pipe::DPAS ? in.slots : (in.slots - 1) * (in.pipe == Pipe::MATH ? MATH_SLOT : 1));
}

Cycles Scoreboard::message_of(const Instruction &in) const {
    const Send &send = in.send;
    switch (send.message) {
    case Message::FENCE:
        return send.space == Space::TEAM ? issued_ + TEAM_FENCE : later(issued_ + FENCE, stored_);
    case Message::ATOMIC_INC:
    case Message::ATOMIC_ADD:
        return issued_ + SECOND_CACHE;
    case Message::LOAD:
    case Message::STORE:
        break;
    default:
        return issued_;
    }
    if (send.space == Space::TEAM)
        return issued_ + (send.bytes * send.count * in.lanes > REGISTER ? WIDE_TEAM : TEAM);
    if (send.message == Message::STORE)
        return issued_ + SECOND_CACHE;
    return send.space == Space::ARGUMENTS ? issued_ + FIRST_CACHE : loaded_;
}

} // namespace xe2
