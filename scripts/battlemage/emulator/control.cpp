// Jumps, calls, barriers, the control register, and the macros of IEEE division and square root.
#include "group.hpp"
#include "handlers.hpp"
#include "thread.hpp"

#include <cfenv>
#include <cmath>
#include <vector>

namespace xe2 {
namespace {

constexpr std::uint32_t TO_NEAREST = 0, TO_ZERO = 3; // rounding in the control register

const Instruction *jump_to(Thread &t, const Instruction *in) {
    if (in->jump <= in && --t.jumps_left == 0)
        fault(*in, "a thread jumps back without end");
    return in->jump;
}

const Instruction *jump(Thread &t, const Instruction *in) {
    const bool taken = !in->predicated || (peek<std::uint16_t>(t.bytes + in->predicate) & 1) != in->inverse;
    return taken ? jump_to(t, in) : in + 1;
}

/// All channels leave, or none does: here every thread has one flow of control.
const Instruction *go_to(Thread &t, const Instruction *in) {
    const std::uint32_t leaving = enabled(t, *in);
    if (leaving != 0 && leaving != all_lanes(in->lanes))
        fault(*in, "channels part at a goto, which is not emulated");
    return leaving ? jump_to(t, in) : in + 1;
}

const Instruction *call(Thread &t, const Instruction *in) {
    poke(t.bytes + in->target.offset, std::uint32_t((in + 1)->offset));
    poke(t.bytes + in->target.offset + 4, ~0u); // the channels that come back
    return jump_to(t, in);
}

const Instruction *at_offset(const Thread &t, const Instruction &in, int offset) {
    for (const Instruction &each : t.group->kernel.code)
        if (each.offset == offset)
            return &each;
    fault(in, "a thread returns or jumps to where no instruction begins");
}

/// Back to where a call left: the register holds the offset of an instruction.
const Instruction *come_back(Thread &t, const Instruction *in) {
    return at_offset(t, *in, int(peek<std::uint32_t>(t.bytes + in->source[0].offset)));
}

/// The register holds bytes from this instruction on: the compiler adds the 16 of its own to an index into the table.
const Instruction *jump_by_register(Thread &t, const Instruction *in) {
    const Instruction *const target = at_offset(t, *in, in->offset + integer<std::int32_t>(t, in->source[0]));
    if (target <= in)
        fault(*in, "a thread jumps back by a table");
    return target;
}

const Instruction *pass(Thread &, const Instruction *in) { return in + 1; }

const Instruction *unreachable(Thread &, const Instruction *in) { fault(*in, "not emulated"); }

const Instruction *wait_for_barrier(Thread &t, const Instruction *in) {
    must_round_to_nearest(t, *in);
    if (!t.signalled)
        fault(*in, "a thread waits at a barrier that it has not signalled");
    t.signalled = false;
    t.next = in + 1;
    return nullptr;
}

/// The quotient or root, correctly rounded: what the macro computes. Its flags say that every channel is done.
template <bool DIVIDES> const Instruction *macro(Thread &t, const Instruction *in) {
    const std::uint32_t mask = enabled(t, *in);
    Floats value = floats(t, in->source[0], 0);
    if (DIVIDES)
        value = value / floats(t, in->source[1], 0);
    else
        for (int i = 0; i < LANES; ++i)
            value[i] = std::sqrt(value[i]);
    put(t, *in, 0, value, mask);
    set_flags(t, in->flag, all_lanes(in->lanes), ~0u);
    return in + 1;
}

using Shape = std::vector<int>;
// What each madm of a macro is made of, in order: target, then three sources; 0 … 6 are mme0 … mme6, 7 the final
// target, 8 the first source of the macro, 9 its second, 10 any other register (a constant); negative ones are 100
// more.
const Shape DIVISION{1, 10, 8, 0, 2, 10, 109, 0, 3, 0, 2, 0, 4, 8, 109, 1, 5, 1, 4, 3, 6, 8, 109, 5, 7, 5, 6, 3};
const Shape ROOT{1, 10, 10, 0, 2, 10, 8, 0, 3, 10, 102, 1, 4, 1, 3, 1, 5, 2, 3, 2, 6, 8, 105, 5, 7, 5, 4, 6};

} // namespace

void must_round_to_nearest(const Thread &t, const Instruction &in) {
    if ((peek<std::uint32_t>(t.bytes + CR0) >> 4 & 3) == TO_NEAREST)
        return;
    std::fesetround(FE_TONEAREST);
    fault(in, "a thread stops while it rounds to zero");
}

Handler macro_handler(Kernel &kernel, Instruction &in) {
    const bool divides = in.opcode == Opcode::INVM;
    const Instruction *end = kernel.code.data() + kernel.code.size(), *at = &in + 1;
    while (at != end && at->opcode == Opcode::SYNC)
        ++at;
    if (in.lanes != LANES || in.condition != Condition::EO || at == end || at->opcode != Opcode::GOTO ||
        at->predicate != in.flag || at->inverse)
        return nullptr;
    const int last = at->jump_offset, first_source = in.source[0].offset, second = in.source[1].offset;
    Shape shape;
    int result = -1;
    for (++at; at != end && at->offset < last; ++at) {
        if (at->opcode != Opcode::MADM)
            continue;
        const auto part = [&](const Operand &o) {
            const int sign = o.negate ? 100 : 0;
            if (o.integer >= 0)
                return sign + int(o.integer);
            return sign + (o.offset == first_source ? 8 : divides && o.offset == second ? 9 : 10);
        };
        shape.push_back(at->target.integer >= 0 ? int(at->target.integer) : 7);
        for (const Operand &o : at->source)
            shape.push_back(part(o));
        result = at->target.offset;
    }
    return shape == (divides ? DIVISION : ROOT) && result == in.target.offset ? (divides ? macro<true> : macro<false>)
                                                                              : nullptr;
}

void take_control_register(const Thread &t, const Instruction &in) {
    // Bits 4 and 5: rounding; 6, 7, 10: double, float and half denormals are kept; 30: set by the compiler in every
    // kernel.
    constexpr std::uint32_t KEPT = 1u << 7, KNOWN = 3u << 4 | 1u << 6 | 1u << 7 | 1u << 10 | 1u << 30;
    const std::uint32_t value = peek<std::uint32_t>(t.bytes + CR0), mode = value >> 4 & 3;
    if ((value & ~KNOWN) || (value != 0 && !(value & KEPT)) || (mode != TO_NEAREST && mode != TO_ZERO))
        fault(in, "the control register becomes " + std::to_string(value) +
                      ", which is not rounding to nearest or to zero with denormals kept");
    std::fesetround(mode == TO_ZERO ? FE_TOWARDZERO : FE_TONEAREST);
}

Handler control_handler(const Instruction &in) {
    switch (in.opcode) {
    case Opcode::JMPI:
        if (in.source[0].form == Form::NONE)
            return jump;
        return in.predicated ? nullptr : jump_by_register;
    case Opcode::GOTO:
        return go_to;
    case Opcode::CALL:
        return in.predicated ? nullptr : call;
    case Opcode::RET:
        return in.predicated ? nullptr : come_back;
    case Opcode::JOIN:
    case Opcode::SYNC:
    case Opcode::NOP:
        return pass;
    case Opcode::SYNC_BAR:
        return wait_for_barrier;
    case Opcode::MADM:
    case Opcode::ILLEGAL:
        return unreachable;
    default:
        return nullptr;
    }
}

} // namespace xe2
