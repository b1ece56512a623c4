#include "trace.hpp"

#include "instruction.hpp"

#include <algorithm>
#include <cstdio>

namespace xe2 {
namespace {

constexpr std::uint32_t NEVER = ~0u;
constexpr std::size_t OPEN = 4;              // latest accesses that a further one may lengthen
constexpr std::uint64_t MAX_WRITE = 1 << 12; // bytes of one recorded write
constexpr int LINE = 64;

bool earlier(const Access &a, const Access &b) { return a.begin < b.begin; }

std::string described(const Access &a) {
    static const char *const WHAT[] = {"reads", "writes", "counts"};
    char text[240];
    std::snprintf(text, sizeof text, "group %u thread %u %s it at 0x%x (%s)", a.group, unsigned(a.thread),
                  WHAT[int(a.touch)], unsigned(a.in->offset), a.in->text.c_str());
    return text;
}

/// Lines of 64 bytes that accesses in the order of their addresses touch.
std::uint64_t distinct_lines(const std::vector<Access> &sorted) {
    std::uint64_t count = 0, next = 0; // the first line that is not counted yet
    for (const Access &access : sorted) {
        const std::uint64_t first = std::max(access.begin / LINE, next), last = (access.end - 1) / LINE + 1;
        if (last > first) {
            count += last - first;
            next = last;
        }
    }
    return count;
}

/// Makes one access of those that meet, for their lines alone.
void join(std::vector<Access> &accesses) {
    std::sort(accesses.begin(), accesses.end(), earlier);
    std::size_t last = 0;
    for (std::size_t i = 1; i < accesses.size(); ++i)
        if (accesses[i].begin <= accesses[last].end)
            accesses[last].end = std::max(accesses[last].end, accesses[i].end);
        else
            accesses[++last] = accesses[i];
    accesses.resize(accesses.empty() ? 0 : last + 1);
}

} // namespace

void GroupTrace::begin(std::uint32_t group, int threads) {
    group_ = group;
    interval_ = 0;
    threads_.assign(threads, {});
    accesses_.clear();
    hand_overs_.clear();
}

void GroupTrace::access(Touch touch, int thread, std::uint64_t address, std::size_t bytes, const Instruction *in) {
    PerThread &own = threads_[thread];
    ++own.sequence;
    for (std::size_t back = 1; back <= OPEN && back <= accesses_.size(); ++back) {
        Access &open = accesses_[accesses_.size() - back];
        const bool same =
            open.touch == touch && open.thread == thread && open.interval == interval_ && touch != Touch::ATOMIC;
        const bool grows = touch == Touch::READ || (open.fenced_sequence == NEVER && open.end - open.begin < MAX_WRITE);
        if (same && grows && open.end == address && own.untaken.empty() && hand_overs_.empty()) {
            open.end += bytes;
            return;
        }
    }
    const bool read = touch != Touch::WRITE;
    if (!read)
        own.unfenced.push_back(accesses_.size());
    accesses_.push_back({address, address + bytes, group_, interval_, own.sequence, read ? interval_ : NEVER,
                         read ? own.sequence : NEVER, std::uint16_t(thread), touch, in});
}

void GroupTrace::fence(int thread, bool evicts) {
    PerThread &own = threads_[thread];
    ++own.sequence;
    for (const std::size_t place : own.unfenced) {
        accesses_[place].fenced_interval = interval_;
        accesses_[place].fenced_sequence = own.sequence;
    }
    own.unfenced.clear();
    if (!evicts)
        return;
    for (const std::size_t place : own.untaken) {
        hand_overs_[place].taken_interval = interval_;
        hand_overs_[place].taken_sequence = own.sequence;
    }
    own.untaken.clear();
}

void GroupTrace::atomic(int thread, std::uint64_t address, std::size_t bytes, const Instruction *in) {
    access(Touch::ATOMIC, thread, address, bytes, in);
    PerThread &own = threads_[thread];
    auto &history = launch->histories_[address];
    own.untaken.push_back(hand_overs_.size());
    hand_overs_.push_back({std::uint16_t(thread), interval_, own.sequence, NEVER, NEVER, address, history.size()});
    history.push_back({group_, std::uint16_t(thread), interval_, own.sequence});
}

void GroupTrace::end() {
    std::vector<Access> reads, writes;
    for (const Access &access : accesses_)
        (access.touch == Touch::READ ? reads : writes).push_back(access);
    std::uint64_t lines = 0;
    if (launch->counts_lines) {
        std::sort(accesses_.begin(), accesses_.end(), earlier);
        lines = distinct_lines(accesses_);
    }
    if (launch->counts_lines && !launch->finds_races)
        for (std::vector<Access> *accesses : {&reads, &writes})
            join(*accesses);
    const std::lock_guard<std::mutex> guard(launch->groups_);
    launch->group_lines_ += lines;
    launch->reads_.insert(launch->reads_.end(), reads.begin(), reads.end());
    launch->writes_.insert(launch->writes_.end(), writes.begin(), writes.end());
    if (!hand_overs_.empty())
        launch->hand_overs_[group_] = hand_overs_;
}

/// Whether `a` comes before `b` whatever the order of threads and groups.
bool LaunchTrace::ordered(const Access &a, const Access &b) const {
    if (a.group == b.group)
        return a.thread == b.thread ? a.sequence <= b.sequence : a.fenced_interval < b.interval;
    const auto taken = hand_overs_.find(b.group);
    if (taken == hand_overs_.end())
        return false;
    for (const HandOver &over : taken->second) {
        const bool knows =
            over.thread == b.thread ? over.taken_sequence < b.sequence : over.taken_interval < b.interval;
        // An atomic operation is in order with what was handed on at the same address before it.
        const bool itself = b.touch == Touch::ATOMIC && over.thread == b.thread && over.sequence == b.sequence;
        if (!knows && !itself)
            continue;
        const auto &history = histories_.at(over.address);
        for (std::size_t place = 0; place < over.place; ++place) {
            const HandedOn &on = history[place];
            if (on.group == a.group &&
                (on.thread == a.thread ? on.sequence >= a.fenced_sequence : on.interval > a.fenced_interval))
                return true;
        }
    }
    return false;
}

std::string LaunchTrace::race() const {
    std::vector<Access> writes = writes_;
    std::sort(writes.begin(), writes.end(), earlier);
    std::uint64_t longest = 0;
    for (const Access &write : writes)
        longest = std::max(longest, write.end - write.begin);
    const auto conflict = [&](const Access &a, const Access &b) {
        return (a.touch != Touch::ATOMIC || b.touch != Touch::ATOMIC) && !ordered(a, b) && !ordered(b, a);
    };
    const auto line = [](const Access &a, const Access &b) {
        char where[80];
        std::snprintf(where, sizeof where,
                      "no order between two accesses to 0x%llx: ", (unsigned long long)std::max(a.begin, b.begin));
        return where + described(a) + ", " + described(b);
    };
    for (std::size_t i = 0; i < writes.size(); ++i)
        for (std::size_t j = i + 1; j < writes.size() && writes[j].begin < writes[i].end; ++j)
            if (conflict(writes[i], writes[j]))
                return line(writes[i], writes[j]);
    for (const Access &read : reads_) {
        Access from = read;
        from.begin = read.begin > longest ? read.begin - longest : 0;
        for (auto write = std::lower_bound(writes.begin(), writes.end(), from, earlier);
             write != writes.end() && write->begin < read.end; ++write)
            if (write->end > read.begin && conflict(read, *write))
                return line(*write, read);
    }
    return {};
}

std::uint64_t LaunchTrace::lines(Touch touch) const {
    std::vector<Access> sorted = touch == Touch::READ ? reads_ : writes_;
    std::sort(sorted.begin(), sorted.end(), earlier);
    return distinct_lines(sorted);
}

} // namespace xe2
