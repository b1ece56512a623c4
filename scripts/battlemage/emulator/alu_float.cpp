// Arithmetic on float32: every operation rounds once, to nearest even, and keeps denormals (see control registers).
#include "handlers.hpp"
#include "thread.hpp"

#include <cmath>

namespace xe2 {
namespace {

struct Add {
    template <class V> static V of(V a, V b, V) { return a + b; }
};
struct Mul {
    template <class V> static V of(V a, V b, V) { return a * b; }
};
/// a + b * c with one rounding.
struct Mad {
    static float of(float a, float b, float c) { return __builtin_fmaf(b, c, a); }
    static Floats of(Floats a, Floats b, Floats c) {
        Floats result;
        for (int i = 0; i < LANES; ++i)
            result[i] = __builtin_fmaf(b[i], c[i], a[i]);
        return result;
    }
};
/// a * b + c, taken as fused; c is the accumulator.
struct Mac {
    template <class V> static V of(V a, V b, V c) { return Mad::of(c, a, b); }
};
struct RoundEven {
    static float of(float a, float, float) { return __builtin_roundevenf(a); }
    static Floats of(Floats a, Floats, Floats) {
        Floats result;
        for (int i = 0; i < LANES; ++i)
            result[i] = __builtin_roundevenf(a[i]);
        return result;
    }
};
/// The larger or smaller; a number where the other is NaN.
struct Max {
    static float of(float a, float b, float) { return a >= b || b != b ? a : b; }
    static Floats of(Floats a, Floats b, Floats) { return (a >= b) | (b != b) ? a : b; }
};
struct Min {
    static float of(float a, float b, float) { return a < b || b != b ? a : b; }
    static Floats of(Floats a, Floats b, Floats) { return (a < b) | (b != b) ? a : b; }
};
/// Reciprocal, taken as the correctly rounded one; silicon may differ in the last bit.
struct Inverse {
    template <class V> static V of(V a, V, V) { return 1.0f / a; }
};

inline float saturated(float v) { return !(v > 0) ? 0.0f : v > 1 ? 1.0f : v; }

template <class OP, int SOURCES> const Instruction *one(Thread &t, const Instruction *in) {
    float s[3] = {};
    for (int i = 0; i < SOURCES; ++i)
        s[i] = real(t, in->source[i]);
    if (enabled(t, *in)) {
        const float result = OP::of(s[0], s[1], s[2]);
        put_real(t.bytes + place_of(t, in->target), in->target.type, in->saturate ? saturated(result) : result);
    }
    return in + 1;
}

template <class OP, int SOURCES> const Instruction *many(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    Floats results[2];
    for (int first = 0; first < in->lanes; first += LANES) {
        Floats s[3] = {};
        for (int i = 0; i < SOURCES; ++i)
            s[i] = floats(t, in->source[i], first);
        Floats &result = results[first / LANES] = OP::of(s[0], s[1], s[2]);
        if (in->saturate)
            for (int i = 0; i < LANES; ++i)
                result[i] = saturated(result[i]);
    }
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, results[first / LANES], mask);
    return in + 1;
}

/// Any number of lanes, with flags that tell how the results compare to 0.
template <class OP, int SOURCES> const Instruction *with_flags(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    std::uint32_t flags = 0;
    Floats results[2];
    for (int first = 0; first < in->lanes; first += LANES) {
        Floats s[3] = {};
        for (int i = 0; i < SOURCES; ++i)
            s[i] = floats(t, in->source[i], first);
        Floats &result = results[first / LANES] = OP::of(s[0], s[1], s[2]);
        for (int i = 0; i < LANES && first + i < in->lanes; ++i)
            flags |= std::uint32_t(holds(in->condition, result[i], 0.0f)) << (first + i);
    }
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, results[first / LANES], mask);
    set_flags(t, in->flag, mask, flags);
    return in + 1;
}

template <class OP, int SOURCES> Handler handler(const Instruction &in) {
    if (in.condition != Condition::NONE && in.opcode != Opcode::SEL)
        return in.saturate ? nullptr : with_flags<OP, SOURCES>;
    return in.lanes == 1 ? one<OP, SOURCES> : many<OP, SOURCES>;
}

} // namespace

Handler float_handler(const Instruction &in) {
    switch (in.opcode) {
    case Opcode::ADD:
        return handler<Add, 2>(in);
    case Opcode::MUL:
        return handler<Mul, 2>(in);
    case Opcode::MAD:
        return handler<Mad, 3>(in);
    case Opcode::MAC:
        return handler<Mac, 3>(in);
    case Opcode::RNDE:
        return handler<RoundEven, 1>(in);
    case Opcode::INV:
        return handler<Inverse, 1>(in);
    case Opcode::SEL:
        if (in.predicated)
            return nullptr; // a choice, not arithmetic
        return in.condition == Condition::GE   ? handler<Max, 2>(in)
               : in.condition == Condition::LT ? handler<Min, 2>(in)
                                               : nullptr;
    default:
        return nullptr;
    }
}

} // namespace xe2
