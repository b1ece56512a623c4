// Integer arithmetic and logic. Where the target has at most 32 bits and only lower halves matter, lanes are int32.
#include "handlers.hpp"
#include "thread.hpp"

#include <algorithm>

namespace xe2 {
namespace {

struct Add {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a + b; }
};
struct Add3 {
    template <class V> static V of(V a, V b, V c, const Instruction &) { return a + b + c; }
};
struct Mul {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a * b; }
};
struct Mad {
    template <class V> static V of(V a, V b, V c, const Instruction &) { return a + b * c; }
};
struct And {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a & b; }
};
struct Or {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a | b; }
};
struct Xor {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a ^ b; }
};
struct Not {
    template <class V> static V of(V a, V, V, const Instruction &) { return ~a; }
};
struct Max {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a >= b ? a : b; }
};
struct Min {
    template <class V> static V of(V a, V b, V, const Instruction &) { return a < b ? a : b; }
};
/// Any function of three bits: bit s0 + 2 s1 + 4 s2 of the table is its value.
struct Bfn {
    template <class V> static V of(V a, V b, V c, const Instruction &in) {
        V result = a ^ a;
        for (int i = 0; i < 8; ++i)
            if (in.function >> i & 1)
                result |= (i & 1 ? a : ~a) & (i & 2 ? b : ~b) & (i & 4 ? c : ~c);
        return result;
    }
};

/// The bits of a count that a shift looks at: six for 64-bit targets, else five.
inline int shift_mask(const Instruction &in) { return size_of(in.target.type) == 8 ? 63 : 31; }

struct Shl {
    template <class V> static V of(V a, V b, V, const Instruction &in) { return a << (b & shift_mask(in)); }
};
struct Asr {
    template <class V> static V of(V a, V b, V, const Instruction &in) { return a >> (b & shift_mask(in)); }
};
struct Shr { // of values that are not negative as they were read, or of all 64 bits
    static std::int64_t of(std::int64_t a, std::int64_t b, std::int64_t, const Instruction &in) {
        return std::int64_t(std::uint64_t(a) >> (b & shift_mask(in)));
    }
    static Longs of(Longs a, Longs b, Longs, const Instruction &in) {
        return Longs(Lanes<std::uint64_t>(a) >> Lanes<std::uint64_t>(b & shift_mask(in)));
    }
};
struct LeadingZeros {
    static std::int32_t of(std::int32_t a, std::int32_t, std::int32_t, const Instruction &) {
        return a ? __builtin_clz(std::uint32_t(a)) : 32;
    }
    static Ints of(Ints a, Ints b, Ints c, const Instruction &in) {
        for (int i = 0; i < LANES; ++i)
            a[i] = of(a[i], b[i], c[i], in);
        return a;
    }
};
struct ReverseBits {
    static std::int32_t of(std::int32_t a, std::int32_t, std::int32_t, const Instruction &) {
        std::uint32_t reversed = 0;
        for (int i = 0; i < 32; ++i)
            reversed |= (std::uint32_t(a) >> i & 1) << (31 - i);
        return std::int32_t(reversed);
    }
    static Ints of(Ints a, Ints b, Ints c, const Instruction &in) {
        for (int i = 0; i < LANES; ++i)
            a[i] = of(a[i], b[i], c[i], in);
        return a;
    }
};

std::int64_t clamped(std::int64_t v, Type type) {
    const int bits = 8 * size_of(type);
    if (bits == 64)
        return v;
    const std::int64_t low = is_signed(type) ? -(1ll << (bits - 1)) : 0;
    const std::int64_t high = is_signed(type) ? (1ll << (bits - 1)) - 1 : (1ll << bits) - 1;
    return std::clamp(v, low, high);
}

/// The value as the target type holds it.
std::int64_t held(std::int64_t v, Type type) {
    std::uint8_t bytes[8];
    put_integer(bytes, type, v);
    return integer_at(bytes, type);
}

template <class OP, class C, int SOURCES> const Instruction *one(Thread &t, const Instruction *in) {
    C s[3] = {};
    for (int i = 0; i < SOURCES; ++i)
        s[i] = integer<C>(t, in->source[i]);
    if (enabled(t, *in))
        put_integer(t.bytes + place_of(t, in->target), in->target.type, OP::of(s[0], s[1], s[2], *in));
    return in + 1;
}

template <class OP, class C, int SOURCES> const Instruction *many(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    Lanes<C> results[2];
    for (int first = 0; first < in->lanes; first += LANES) {
        Lanes<C> s[3] = {};
        for (int i = 0; i < SOURCES; ++i)
            s[i] = integers<C>(t, in->source[i], first);
        results[first / LANES] = OP::of(s[0], s[1], s[2], *in);
    }
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, results[first / LANES], mask);
    return in + 1;
}

/// Any number of lanes, with flags that tell about the results, or saturation.
template <class OP, class C, int SOURCES> const Instruction *with_flags(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    std::uint32_t flags = 0;
    Lanes<C> results[2];
    for (int first = 0; first < in->lanes; first += LANES) {
        Lanes<C> s[3] = {};
        for (int i = 0; i < SOURCES; ++i)
            s[i] = integers<C>(t, in->source[i], first);
        Lanes<C> &result = results[first / LANES] = OP::of(s[0], s[1], s[2], *in);
        for (int i = 0; i < LANES && first + i < in->lanes; ++i) {
            if (in->saturate)
                result[i] = C(clamped(result[i], in->target.type));
            flags |= std::uint32_t(holds(in->condition, held(result[i], in->target.type), std::int64_t(0)))
                     << (first + i);
        }
    }
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, results[first / LANES], mask);
    if (in->condition != Condition::NONE)
        set_flags(t, in->flag, mask, flags);
    return in + 1;
}

/// Writes to the control register are looked at.
const Instruction *control_register(Thread &t, const Instruction *in) {
    const std::uint32_t a = integer<std::int32_t>(t, in->source[0]), b = integer<std::int32_t>(t, in->source[1]);
    poke(t.bytes + in->target.offset, in->opcode == Opcode::AND ? a & b : a | b);
    take_control_register(t, *in);
    return in + 1;
}

/// mach and macl, the upper and the lower 32 bits of a product, of which a mul before them has left the first half in
/// the accumulator: the first factor times the second one's lower 16 bits. mach leaves the lower bits of the whole
/// there.
const Instruction *finish_product(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    for (int i = 0; i < in->lanes; ++i) {
        if (!(mask >> i & 1))
            continue;
        const auto factor = [&](const Operand &o) {
            return integers<std::int64_t>(t, o, i / LANES * LANES)[i % LANES];
        };
        const std::int64_t a = factor(in->source[0]), b = factor(in->source[1]), product = a * b;
        if (peek<std::uint32_t>(t.bytes + ACC + 4 * i) != std::uint32_t(a * (b & 0xffff)))
            fault(*in, "the accumulator does not hold the mul of these factors");
        const bool upper = in->opcode == Opcode::MACH;
        if (upper)
            poke(t.bytes + ACC + 4 * i, std::uint32_t(product));
        put_integer(t.bytes + place_of(t, in->target) + 4 * i * in->target.horizontal, in->target.type,
                    upper ? product >> 32 : product);
    }
    return in + 1;
}

template <class OP, class C, int SOURCES> Handler pick(const Instruction &in) {
    if (in.condition != Condition::NONE || in.saturate)
        return with_flags<OP, C, SOURCES>;
    return in.lanes == 1 ? one<OP, C, SOURCES> : many<OP, C, SOURCES>;
}

template <class OP, int SOURCES> Handler by_width(const Instruction &in) {
    bool narrow = size_of(in.target.type) <= 4 && !in.saturate;
    for (int i = 0; i < SOURCES; ++i)
        narrow = narrow && (size_of(in.source[i].type) <= 4 || in.source[i].form == Form::IMMEDIATE);
    return narrow ? pick<OP, std::int32_t, SOURCES>(in) : pick<OP, std::int64_t, SOURCES>(in);
}

} // namespace

Handler integer_handler(const Instruction &in) {
    if (in.target.offset == CR0 && in.target.form != Form::INDIRECT) {
        const bool known =
            in.lanes == 1 && !in.predicated && in.condition == Condition::NONE && size_of(in.target.type) == 4;
        return known && (in.opcode == Opcode::AND || in.opcode == Opcode::OR) ? control_register : nullptr;
    }
    switch (in.opcode) {
    case Opcode::ADD:
        return by_width<Add, 2>(in);
    case Opcode::ADD3:
        return by_width<Add3, 3>(in);
    case Opcode::MUL:
        return by_width<Mul, 2>(in);
    case Opcode::MAD:
        return by_width<Mad, 3>(in);
    case Opcode::AND:
        return by_width<And, 2>(in);
    case Opcode::OR:
        return by_width<Or, 2>(in);
    case Opcode::XOR:
        return by_width<Xor, 2>(in);
    case Opcode::NOT:
        return by_width<Not, 1>(in);
    case Opcode::BFN:
        return by_width<Bfn, 3>(in);
    case Opcode::SHL:
        return by_width<Shl, 2>(in);
    case Opcode::ASR:
        return is_signed(in.source[0].type) ? by_width<Asr, 2>(in) : nullptr;
    case Opcode::SHR:
        return !is_signed(in.source[0].type) ? pick<Shr, std::int64_t, 2>(in) : nullptr;
    case Opcode::LZD:
        return in.source[0].type == Type::UD ? pick<LeadingZeros, std::int32_t, 1>(in) : nullptr;
    case Opcode::BFREV:
        return in.source[0].type == Type::UD ? pick<ReverseBits, std::int32_t, 1>(in) : nullptr;
    case Opcode::MACH:
    case Opcode::MACL:
        return in.condition == Condition::NONE && !in.saturate && size_of(in.target.type) == 4 ? finish_product
                                                                                               : nullptr;
    case Opcode::SEL:
        if (in.predicated)
            return nullptr; // a choice, not arithmetic
        // 64-bit lanes: int32 and uint32 compare as the numbers that they are.
        if (in.condition == Condition::GE)
            return in.lanes == 1 ? one<Max, std::int64_t, 2> : many<Max, std::int64_t, 2>;
        return in.condition != Condition::LT ? nullptr
               : in.lanes == 1               ? one<Min, std::int64_t, 2>
                                             : many<Min, std::int64_t, 2>;
    default:
        return nullptr;
    }
}

} // namespace xe2
