// A hardware thread's registers, and how operands of 16 lanes are read and written.
#pragma once

#include "instruction.hpp"

#include <cstring>

namespace xe2 {

struct Group;
class Scoreboard;

struct Thread {
    alignas(64) std::uint8_t bytes[THREAD_BYTES + 2 * REGISTER];   // reads of 16 lanes may reach beyond the last
    alignas(64) std::uint8_t defined[THREAD_BYTES + 2 * REGISTER]; // with checks: 1 where a byte holds a value
    Group *group;
    Scoreboard *scoreboard; // null: nobody asks for times
    const Instruction *next;
    int index;
    std::uint64_t executed; // instructions since its beginning
    bool signalled, ended;
    std::uint64_t jumps_left; // backwards
};

constexpr int LANES = 16;
template <class T> struct LanesOf {
    typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};
template <class T> using Lanes = typename LanesOf<T>::type;
using Floats = Lanes<float>;
using Ints = Lanes<std::int32_t>;
using Longs = Lanes<std::int64_t>;

template <class T> inline T peek(const std::uint8_t *from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T> inline void poke(std::uint8_t *to, T value) { std::memcpy(to, &value, sizeof value); }

inline std::uint32_t all_lanes(int count) { return count >= 32 ? ~0u : (1u << count) - 1; }

/// The channels for which an instruction writes.
inline std::uint32_t enabled(const Thread &t, const Instruction &in) {
    const std::uint32_t all = all_lanes(in.lanes);
    if (!in.predicated)
        return all;
    const std::uint32_t flags = peek<std::uint32_t>(t.bytes + in.predicate);
    return (in.inverse ? ~flags : flags) & all;
}

/// Flag bits of the lanes in `lanes` become those of `value`.
inline void set_flags(Thread &t, int place, std::uint32_t lanes, std::uint32_t value) {
    std::uint8_t *at = t.bytes + place;
    if (lanes > 0xffff)
        poke(at, (peek<std::uint32_t>(at) & ~lanes) | (value & lanes));
    else
        poke(at, std::uint16_t((peek<std::uint16_t>(at) & ~lanes) | (value & lanes)));
}

/// The byte offset of a lane's element from that of lane 0.
inline int stride_to(const Operand &o, int lane) {
    return size_of(o.type) * (lane / o.width * o.vertical + lane % o.width * o.horizontal);
}

/// Where an operand's first element lies.
inline int place_of(const Thread &t, const Operand &o) {
    if (o.form != Form::INDIRECT)
        return o.offset;
    const int place = peek<std::uint16_t>(t.bytes + o.offset) + o.displacement;
    if (place < 0 || place + stride_to(o, LANES - 1) + size_of(o.type) > ACC)
        throw Fault("an indirect register beyond the last");
    return place;
}

/// An integer as it lies in a register.
inline std::int64_t integer_at(const std::uint8_t *at, Type type) {
    switch (type) {
    case Type::UD:
        return peek<std::uint32_t>(at);
    case Type::D:
        return peek<std::int32_t>(at);
    case Type::UW:
        return peek<std::uint16_t>(at);
    case Type::W:
        return peek<std::int16_t>(at);
    case Type::UB:
        return *at;
    case Type::B:
        return std::int8_t(*at);
    default:
        return peek<std::int64_t>(at);
    }
}
inline float real_at(const std::uint8_t *at, Type type) {
    return type == Type::HF ? float(peek<_Float16>(at)) : peek<float>(at);
}
/// Element `lane` of a vector immediate: eight nibbles that count as words.
inline std::int64_t nibble(const Operand &o, int lane) {
    const std::uint32_t bits = std::uint32_t(o.integer) >> (4 * (lane * o.nibble_step % 8)) & 15;
    return o.type == Type::V ? std::int64_t(bits ^ 8) - 8 : std::int64_t(bits);
}

template <class C> inline C modified(const Operand &o, C value) {
    if (o.absolute)
        value = value < 0 ? -value : value;
    if (o.negate)
        value = -value;
    if (o.invert)
        value = ~value;
    return value;
}

template <class C, class T> inline Lanes<C> widened(const std::uint8_t *at) {
    return __builtin_convertvector(peek<Lanes<T>>(at), Lanes<C>);
}

/// Lanes `first` … `first` + 15 of an integer operand, as C (int32 keeps the lower half).
template <class C> inline Lanes<C> integers(const Thread &t, const Operand &o, int first) {
    Lanes<C> value;
    if (o.form == Form::IMMEDIATE)
        return Lanes<C>{} + C(o.integer);
    if (o.form == Form::LANES) {
        for (int i = 0; i < LANES; ++i)
            value[i] = C(nibble(o, first + i));
        return value;
    }
    const std::uint8_t *at = t.bytes + place_of(t, o);
    if (o.form == Form::SCALAR)
        value = Lanes<C>{} + C(integer_at(at, o.type));
    else if (o.form == Form::CONTIGUOUS) {
        at += first * size_of(o.type);
        switch (o.type) {
        case Type::UD:
            value = widened<C, std::uint32_t>(at);
            break;
        case Type::D:
            value = widened<C, std::int32_t>(at);
            break;
        case Type::UW:
            value = widened<C, std::uint16_t>(at);
            break;
        case Type::W:
            value = widened<C, std::int16_t>(at);
            break;
        case Type::UB:
            value = widened<C, std::uint8_t>(at);
            break;
        case Type::B:
            value = widened<C, std::int8_t>(at);
            break;
        default:
            value = widened<C, std::int64_t>(at);
        }
    } else
        for (int i = 0; i < LANES; ++i)
            value[i] = C(integer_at(at + stride_to(o, first + i), o.type));
    if (o.modified())
        for (int i = 0; i < LANES; ++i)
            value[i] = modified(o, value[i]);
    return value;
}

template <class C> inline C integer(const Thread &t, const Operand &o) {
    if (o.form == Form::IMMEDIATE)
        return C(o.integer);
    if (o.form == Form::LANES)
        return C(nibble(o, 0));
    const C value = C(integer_at(t.bytes + place_of(t, o), o.type));
    return o.modified() ? modified(o, value) : value;
}

inline float signed_as(const Operand &o, float value) {
    const float size = o.absolute ? __builtin_fabsf(value) : value;
    return o.negate ? -size : size;
}

inline Floats everywhere(float one) { // not one + 0, which loses the sign of -0
    Floats value;
    for (int i = 0; i < LANES; ++i)
        value[i] = one;
    return value;
}

/// The same for a float32 or float16 operand.
inline Floats floats(const Thread &t, const Operand &o, int first) {
    if (o.form == Form::IMMEDIATE)
        return everywhere(o.real);
    Floats value;
    const std::uint8_t *at = t.bytes + place_of(t, o);
    if (o.form == Form::SCALAR)
        value = everywhere(real_at(at, o.type));
    else if (o.form == Form::CONTIGUOUS && o.type == Type::F)
        value = peek<Floats>(at + 4 * first);
    else
        for (int i = 0; i < LANES; ++i)
            value[i] = real_at(at + stride_to(o, first + i), o.type);
    if (o.modified())
        for (int i = 0; i < LANES; ++i)
            value[i] = signed_as(o, value[i]);
    return value;
}
inline float real(const Thread &t, const Operand &o) {
    if (o.form == Form::IMMEDIATE)
        return o.real;
    const float value = real_at(t.bytes + place_of(t, o), o.type);
    return o.modified() ? signed_as(o, value) : value;
}

inline void put_integer(std::uint8_t *at, Type type, std::int64_t value) {
    switch (size_of(type)) {
    case 1:
        *at = std::uint8_t(value);
        break;
    case 2:
        poke(at, std::uint16_t(value));
        break;
    case 4:
        poke(at, std::uint32_t(value));
        break;
    default:
        poke(at, value);
    }
}
inline void put_real(std::uint8_t *at, Type type, float value) {
    if (type == Type::HF)
        poke(at, _Float16(value));
    else
        poke(at, value);
}

template <class T, class V> inline void narrow_all(std::uint8_t *at, V value) {
    poke(at, __builtin_convertvector(value, Lanes<T>));
}

/// Write lanes `first` … of an integer target, those of `mask`; values keep their lower bits.
template <class V> inline void put(Thread &t, const Instruction &in, int first, V value, std::uint32_t mask) {
    const Operand &o = in.target;
    std::uint8_t *at = t.bytes + place_of(t, o);
    const std::uint32_t here = mask >> first & 0xffff;
    if (here == 0xffff && o.form == Form::CONTIGUOUS) {
        at += first * size_of(o.type);
        switch (size_of(o.type)) {
        case 1:
            return narrow_all<std::uint8_t>(at, value);
        case 2:
            return narrow_all<std::uint16_t>(at, value);
        case 4:
            return narrow_all<std::uint32_t>(at, value);
        default:
            return narrow_all<std::int64_t>(at, value);
        }
    }
    const int count = in.lanes - first < LANES ? in.lanes - first : LANES;
    for (int i = 0; i < count; ++i)
        if (here >> i & 1)
            put_integer(at + size_of(o.type) * (first + i) * o.horizontal, o.type, value[i]);
}
inline void put(Thread &t, const Instruction &in, int first, Floats value, std::uint32_t mask) {
    const Operand &o = in.target;
    std::uint8_t *at = t.bytes + place_of(t, o);
    const std::uint32_t here = mask >> first & 0xffff;
    if (here == 0xffff && o.form == Form::CONTIGUOUS && o.type == Type::F)
        return poke(at + 4 * first, value);
    const int count = in.lanes - first < LANES ? in.lanes - first : LANES;
    for (int i = 0; i < count; ++i)
        if (here >> i & 1)
            put_real(at + size_of(o.type) * (first + i) * o.horizontal, o.type, value[i]);
}

} // namespace xe2
