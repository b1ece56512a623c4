// mov: copies and conversions.
#include "handlers.hpp"
#include "thread.hpp"

namespace xe2 {
namespace {

/// Towards zero, limited to what the type holds; NaN becomes 0.
std::int64_t truncated(float v, Type type) {
    const int bits = 8 * size_of(type);
    const std::int64_t above = 1ll << (is_signed(type) ? bits - 1 : bits), low = is_signed(type) ? -above : 0;
    if (v != v)
        return 0;
    return v >= float(above) ? above - 1 : v <= float(low) ? low : std::int64_t(v);
}

/// The nearest float, of two equally near the even one.
inline float nearest(std::int64_t v) { return float(v); }

template <class C> const Instruction *one(Thread &t, const Instruction *in) {
    if (enabled(t, *in))
        put_integer(t.bytes + place_of(t, in->target), in->target.type, integer<C>(t, in->source[0]));
    return in + 1;
}
template <class C> const Instruction *many(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    Lanes<C> values[2];
    for (int first = 0; first < in->lanes; first += LANES)
        values[first / LANES] = integers<C>(t, in->source[0], first);
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, values[first / LANES], mask);
    return in + 1;
}

const Instruction *floats_to_floats(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    Floats values[2];
    for (int first = 0; first < in->lanes; first += LANES)
        values[first / LANES] = floats(t, in->source[0], first);
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, values[first / LANES], mask);
    return in + 1;
}

const Instruction *float_to_integer(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    for (int first = 0; first < in->lanes; first += LANES) {
        const Floats values = floats(t, in->source[0], first);
        Longs integers;
        for (int i = 0; i < LANES; ++i)
            integers[i] = truncated(values[i], in->target.type);
        put(t, *in, first, integers, mask);
    }
    return in + 1;
}

const Instruction *integer_to_float(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    for (int first = 0; first < in->lanes; first += LANES) {
        const Longs values = integers<std::int64_t>(t, in->source[0], first);
        Floats floats;
        for (int i = 0; i < LANES; ++i)
            floats[i] = nearest(values[i]);
        put(t, *in, first, floats, mask);
    }
    return in + 1;
}

/// With flags that tell how the integers compare to 0.
const Instruction *with_flags(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    std::uint32_t zeros = 0;
    for (int first = 0; first < in->lanes; first += LANES) {
        const Longs values = integers<std::int64_t>(t, in->source[0], first);
        for (int i = 0; i < LANES && first + i < in->lanes; ++i)
            zeros |= std::uint32_t(values[i] == 0) << (first + i);
        put(t, *in, first, values, mask);
    }
    set_flags(t, in->flag, mask, in->condition == Condition::EQ ? zeros : ~zeros);
    return in + 1;
}

const Instruction *control_register(Thread &t, const Instruction *in) {
    poke(t.bytes + CR0, integer<std::uint32_t>(t, in->source[0]));
    take_control_register(t, *in);
    return in + 1;
}

} // namespace

Handler move_handler(const Instruction &in) {
    const Type to = in.target.type, from = in.source[0].type;
    const bool to_float = to == Type::F || to == Type::HF, from_float = from == Type::F || from == Type::HF;
    if (in.target.offset == CR0 && in.target.form != Form::INDIRECT)
        return in.lanes == 1 && size_of(to) == 4 && size_of(from) == 4 && !from_float && !in.predicated
                   ? control_register
                   : nullptr;
    if (in.saturate)
        return nullptr;
    if (in.condition != Condition::NONE) {
        const bool known = (in.condition == Condition::EQ || in.condition == Condition::NE) && is_integer(to) &&
                           size_of(to) == size_of(from) && !from_float && in.lanes <= LANES;
        return known ? with_flags : nullptr;
    }
    if (to_float && from_float)
        return floats_to_floats;
    if (to_float)
        return to == Type::F && size_of(from) <= 4 ? integer_to_float : nullptr;
    if (from_float)
        return from == Type::F && size_of(to) <= 4 ? float_to_integer : nullptr;
    if (size_of(to) <= 4 && (size_of(from) <= 4 || in.source[0].form == Form::IMMEDIATE))
        return in.lanes == 1 ? one<std::int32_t> : many<std::int32_t>;
    return in.lanes == 1 ? one<std::int64_t> : many<std::int64_t>;
}

} // namespace xe2
