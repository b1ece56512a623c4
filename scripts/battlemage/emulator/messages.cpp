// send: loads, stores and atomic operations on global and team memory, fences, the barrier's signal, the thread's end.
#include "group.hpp"
#include "handlers.hpp"
#include "thread.hpp"

namespace xe2 {
namespace {

constexpr std::uint8_t DEFINED = 0xff;

/// Bytes of memory that a message may touch.
struct Place {
    std::uint8_t *bytes;
    std::uint8_t *defined; // null: all are
};

std::uint64_t address_of(const Thread &t, const Instruction &in, int channel) {
    const std::uint8_t *at = t.bytes + in.send.address;
    const std::uint64_t base =
        in.send.wide ? peek<std::uint64_t>(at + 8 * channel) : peek<std::uint32_t>(at + 4 * channel);
    return base + std::int64_t(in.send.displacement);
}

Place in_global(Thread &t, const Instruction &in, std::uint64_t address, std::size_t bytes) {
    Group &group = *t.group;
    const Allocation *found = group.last;
    if (!found || !found->holds(address, bytes)) {
        found = group.memory.find(address, bytes);
        if (!found)
            fault(in, "touches " + group.memory.describe(address, bytes));
        group.last = found;
    }
    const std::uint64_t at = address - found->begin;
    return {found->host + at, found->defined ? found->defined + at : nullptr};
}

Place in_team(Thread &t, const Instruction &in, std::uint64_t address, std::size_t bytes) {
    TeamMemory &team = t.group->team;
    const auto size = std::uint64_t(t.group->kernel.team_memory);
    if (bytes > size || address > size - bytes)
        fault(in, "touches bytes " + std::to_string(address) + " to " + std::to_string(address + bytes) +
                      " of team memory, which has " + std::to_string(size));
    return {team.bytes.data() + address, team.defined.empty() ? nullptr : team.defined.data() + address};
}

Place in_arguments(Thread &t, const Instruction &in, std::uint64_t address, std::size_t bytes) {
    const auto &arguments = t.group->arguments;
    if (bytes > arguments.size() || address > arguments.size() - bytes)
        fault(in, "reads arguments beyond the last");
    return {const_cast<std::uint8_t *>(arguments.data()) + address, nullptr};
}

Place locate(Thread &t, const Instruction &in, std::uint64_t address, std::size_t bytes) {
    switch (in.send.space) {
    case Space::TEAM:
        return in_team(t, in, address, bytes);
    case Space::ARGUMENTS:
        return in_arguments(t, in, address, bytes);
    default:
        return in_global(t, in, address, bytes);
    }
}

bool all_defined(const std::uint8_t *defined, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i)
        if (!defined[i])
            return false;
    return true;
}

void must_be_defined(const Thread &t, const Instruction &in, int place, std::size_t bytes, const char *what) {
    if (!all_defined(t.defined + place, bytes))
        fault(in, std::string(what) + " that nothing has written, in r" + std::to_string(place / REGISTER));
}

void address_must_be_defined(const Thread &t, const Instruction &in, int channel) {
    const int width = in.send.wide ? 8 : 4;
    must_be_defined(t, in, in.send.address + width * channel, width, "uses an address");
}

/// What the checks ask of an access that lies where it may.
void look_at(Thread &t, const Instruction &in, std::uint64_t address, std::size_t bytes) {
    const bool writes = in.send.message == Message::STORE;
    if (in.send.space == Space::TEAM) {
        if (const char *why = t.group->team.touch(address, bytes, t.index, writes))
            fault(in, std::string(why) + ": byte " + std::to_string(address) + ", thread " + std::to_string(t.index));
    } else if (in.send.space == Space::GLOBAL && t.group->trace.launch) {
        t.group->trace.access(writes ? Touch::WRITE : Touch::READ, t.index, address, bytes, &in);
        if (t.scoreboard && writes)
            t.scoreboard->store(*t.group->arrivals, address);
        else if (t.scoreboard)
            t.scoreboard->touch(t.group->cache, address, bytes);
    }
}

/// The register bytes between a channel's elements: each begins a row of all channels, in whole registers.
int element_stride(const Instruction &in) { return (in.lanes * in.send.bytes + REGISTER - 1) / REGISTER * REGISTER; }

template <bool CHECKED> void load_element(Thread &t, const Instruction &in, int to, const Place &from, int offset) {
    std::uint64_t value = 0;
    std::memcpy(&value, from.bytes + offset, in.send.memory_bytes);
    std::memcpy(t.bytes + to, &value, in.send.bytes);
    if (CHECKED)
        std::memset(t.defined + to,
                    !from.defined || all_defined(from.defined + offset, in.send.memory_bytes) ? DEFINED : 0,
                    in.send.bytes);
}

/// Team memory takes over what registers hold or do not; global memory takes values alone.
void define_stored(const Thread &t, const Instruction &in, int from, const Place &to, int offset, std::size_t bytes) {
    if (in.send.space == Space::TEAM) {
        std::memcpy(to.defined + offset, t.defined + from, bytes);
        return;
    }
    must_be_defined(t, in, from, bytes, "stores a value");
    if (to.defined)
        std::memset(to.defined + offset, DEFINED, bytes);
}

template <bool CHECKED> void store_element(Thread &t, const Instruction &in, int from, const Place &to, int offset) {
    if (CHECKED)
        define_stored(t, in, from, to, offset, in.send.memory_bytes);
    std::memcpy(to.bytes + offset, t.bytes + from, in.send.memory_bytes);
}

template <bool CHECKED, bool LOADS> void move_block(Thread &t, const Instruction &in) {
    const std::size_t bytes = in.send.bytes * in.send.count;
    const std::uint64_t address = address_of(t, in, 0);
    if (CHECKED)
        address_must_be_defined(t, in, 0);
    const Place place = locate(t, in, address, bytes);
    if (CHECKED)
        look_at(t, in, address, bytes);
    if (LOADS) {
        std::memcpy(t.bytes + in.target.offset, place.bytes, bytes);
        if (CHECKED && place.defined)
            std::memcpy(t.defined + in.target.offset, place.defined, bytes);
        else if (CHECKED)
            std::memset(t.defined + in.target.offset, DEFINED, bytes);
    } else {
        if (CHECKED)
            define_stored(t, in, in.send.data, place, 0, bytes);
        std::memcpy(place.bytes, t.bytes + in.send.data, bytes);
    }
}

template <bool CHECKED, bool LOADS> const Instruction *block(Thread &t, const Instruction *in) {
    if (enabled(t, *in) & 1)
        move_block<CHECKED, LOADS>(t, *in);
    return in + 1;
}

template <bool CHECKED, bool LOADS> const Instruction *by_channel(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    const Send &send = in->send;
    const std::size_t bytes = send.memory_bytes * send.count;
    for (int channel = 0; channel < in->lanes; ++channel) {
        if (!(mask >> channel & 1))
            continue;
        const std::uint64_t address = address_of(t, *in, channel);
        if (CHECKED)
            address_must_be_defined(t, *in, channel);
        const Place place = locate(t, *in, address, bytes);
        if (CHECKED)
            look_at(t, *in, address, bytes);
        if (send.space == Space::GLOBAL)
            t.group->masked_bytes[LOADS ? 0 : 1] += bytes;
        for (int element = 0; element < send.count; ++element) {
            const int at =
                (LOADS ? in->target.offset : send.data) + element * element_stride(*in) + channel * send.bytes;
            if (LOADS)
                load_element<CHECKED>(t, *in, at, place, element * send.memory_bytes);
            else
                store_element<CHECKED>(t, *in, at, place, element * send.memory_bytes);
        }
    }
    return in + 1;
}

/// A hint: nothing arrives anywhere, but it must name memory that exists.
const Instruction *prefetch(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    for (int channel = 0; channel < (in->send.block ? 1 : in->lanes); ++channel)
        if (mask >> channel & 1) {
            const std::uint64_t address = address_of(t, *in, channel);
            locate(t, *in, address, in->send.memory_bytes * in->send.count);
            if (t.scoreboard)
                t.scoreboard->touch(t.group->cache, address, in->send.memory_bytes * in->send.count);
        }
    return in + 1;
}

template <bool CHECKED> const Instruction *atomic(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    for (int channel = 0; channel < in->lanes; ++channel) {
        if (!(mask >> channel & 1))
            continue;
        const std::uint64_t address = address_of(t, *in, channel);
        if (address % 4)
            fault(*in, "counts at an address that is not a multiple of 4");
        const Place place = locate(t, *in, address, 4);
        const bool adds = in->send.message == Message::ATOMIC_ADD;
        std::unique_lock<std::mutex> lock;
        if (CHECKED) {
            address_must_be_defined(t, *in, channel);
            if (adds)
                must_be_defined(t, *in, in->send.data + 4 * channel, 4, "adds a value");
            if (place.defined && !all_defined(place.defined, 4))
                fault(*in, "counts from a value that nothing has written");
            if (GroupTrace &trace = t.group->trace; trace.launch) {
                lock = std::unique_lock<std::mutex>(trace.launch->atomics);
                trace.atomic(t.index, address, 4, in);
            }
            if (t.scoreboard)
                t.scoreboard->count(*t.group->arrivals, address);
        }
        const std::uint32_t more = adds ? peek<std::uint32_t>(t.bytes + in->send.data + 4 * channel) : 1;
        const std::uint32_t before =
            __atomic_fetch_add(reinterpret_cast<std::uint32_t *>(place.bytes), more, __ATOMIC_ACQ_REL);
        if (in->target.offset == NULL_REGISTER)
            continue;
        poke(t.bytes + in->target.offset + 4 * channel, before);
        if (CHECKED)
            std::memset(t.defined + in->target.offset + 4 * channel, DEFINED, 4);
    }
    return in + 1;
}

template <bool CHECKED> const Instruction *fence(Thread &t, const Instruction *in) {
    if (CHECKED) {
        if (in->send.space == Space::GLOBAL && t.group->trace.launch)
            t.group->trace.fence(t.index, in->send.evict);
        if (t.scoreboard && in->send.evict)
            t.group->cache.drop();
        if (in->target.offset != NULL_REGISTER)
            std::memset(t.defined + in->target.offset, DEFINED, REGISTER);
    }
    return in + 1;
}

const Instruction *signal_barrier(Thread &t, const Instruction *in) {
    if (t.signalled)
        fault(*in, "a thread signals a barrier twice");
    t.signalled = true;
    return in + 1;
}

const Instruction *end_of_thread(Thread &t, const Instruction *in) {
    if (t.signalled)
        fault(*in, "a thread ends between a barrier's signal and the wait for it");
    must_round_to_nearest(t, *in);
    t.ended = true;
    return nullptr;
}

template <bool CHECKED> Handler handler(const Instruction &in) {
    const Send &send = in.send;
    const bool loads = send.message == Message::LOAD;
    switch (send.message) {
    case Message::LOAD:
    case Message::STORE:
        if (loads && in.target.offset == NULL_REGISTER)
            return prefetch;
        if (send.block)
            return in.lanes != 1 ? nullptr : loads ? block<CHECKED, true> : block<CHECKED, false>;
        return loads ? by_channel<CHECKED, true> : by_channel<CHECKED, false>;
    case Message::ATOMIC_INC:
    case Message::ATOMIC_ADD:
        return send.space == Space::GLOBAL && send.wide ? atomic<CHECKED> : nullptr;
    case Message::FENCE:
        return fence<CHECKED>;
    case Message::SIGNAL:
        return signal_barrier;
    default:
        return end_of_thread;
    }
}

} // namespace

Handler send_handler(const Instruction &in) { return handler<false>(in); }
Handler checked_send_handler(const Instruction &in) { return handler<true>(in); }

} // namespace xe2
