// cmp, which writes flags, and sel by predicate.
#include "handlers.hpp"
#include "thread.hpp"

namespace xe2 {
namespace {

template <class M> inline std::uint32_t bits(M lanes) {
    std::uint32_t found = 0;
    for (int i = 0; i < LANES; ++i)
        found |= std::uint32_t(lanes[i] & 1) << i;
    return found;
}

void finish(Thread &t, const Instruction &in, std::uint32_t found) {
    const std::uint32_t mask = enabled(t, in);
    set_flags(t, in.flag, mask, found);
    if (in.target.offset == NULL_REGISTER)
        return;
    for (int i = 0; i < in.lanes; ++i)
        if (mask >> i & 1)
            put_integer(t.bytes + place_of(t, in.target) + size_of(in.target.type) * i * in.target.horizontal,
                        in.target.type, found >> i & 1 ? -1 : 0);
}

template <class C> const Instruction *one(Thread &t, const Instruction *in) {
    finish(t, *in, holds(in->condition, integer<C>(t, in->source[0]), integer<C>(t, in->source[1])));
    return in + 1;
}
template <class C> const Instruction *many(Thread &t, const Instruction *in) {
    std::uint32_t found = 0;
    for (int first = 0; first < in->lanes; first += LANES)
        found |= bits(holds(in->condition, integers<C>(t, in->source[0], first), integers<C>(t, in->source[1], first)))
                 << first;
    finish(t, *in, found);
    return in + 1;
}
const Instruction *one_float(Thread &t, const Instruction *in) {
    finish(t, *in, holds(in->condition, real(t, in->source[0]), real(t, in->source[1])));
    return in + 1;
}
const Instruction *many_floats(Thread &t, const Instruction *in) {
    std::uint32_t found = 0;
    for (int first = 0; first < in->lanes; first += LANES)
        found |= bits(holds(in->condition, floats(t, in->source[0], first), floats(t, in->source[1], first))) << first;
    finish(t, *in, found);
    return in + 1;
}

/// Lanes of the first source where the predicate is set, of the second elsewhere; a float's bits stay as they are.
template <class GET> const Instruction *choose(Thread &t, const Instruction *in, GET get) {
    const std::uint32_t mask = enabled(t, *in);
    decltype(get(in->source[0], 0)) results[2];
    for (int first = 0; first < in->lanes; first += LANES) {
        const auto yes = get(in->source[0], first), no = get(in->source[1], first);
        for (int i = 0; i < LANES; ++i)
            results[first / LANES][i] = mask >> (first + i) & 1 ? yes[i] : no[i];
    }
    for (int first = 0; first < in->lanes; first += LANES)
        put(t, *in, first, results[first / LANES], all_lanes(in->lanes));
    return in + 1;
}
const Instruction *choose_integers(Thread &t, const Instruction *in) {
    return choose(t, in, [&](const Operand &o, int first) { return integers<std::int64_t>(t, o, first); });
}
const Instruction *choose_floats(Thread &t, const Instruction *in) {
    return choose(t, in, [&](const Operand &o, int first) { return floats(t, o, first); });
}

} // namespace

Handler compare_handler(const Instruction &in) {
    const Type a = in.source[0].type, b = in.source[1].type;
    if (in.condition == Condition::NONE || in.condition == Condition::EO || in.saturate)
        return nullptr;
    if (a == Type::F && b == Type::F)
        return in.lanes == 1 ? one_float : many_floats;
    if (!is_integer(a) || !is_integer(b))
        return nullptr;
    const bool narrow =
        size_of(a) <= 4 && size_of(b) <= 4 && (is_signed(a) || size_of(a) < 4) && (is_signed(b) || size_of(b) < 4);
    if (narrow)
        return in.lanes == 1 ? one<std::int32_t> : many<std::int32_t>;
    return in.lanes == 1 ? one<std::int64_t> : many<std::int64_t>;
}

Handler choice_handler(const Instruction &in) {
    const Type a = in.source[0].type, b = in.source[1].type;
    if (in.saturate || in.condition != Condition::NONE)
        return nullptr;
    if (in.target.type == Type::F && a == Type::F && b == Type::F)
        return choose_floats;
    return is_integer(in.target.type) && is_integer(a) && is_integer(b) ? choose_integers : nullptr;
}

} // namespace xe2
