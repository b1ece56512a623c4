// The handler of each decoded instruction.
#include "handlers.hpp"

namespace xe2 {
namespace {

/// A copy of bits: of floats that stay what they are.
void make_raw(Instruction &in) {
    const bool same = in.target.type == in.source[0].type && !in.source[0].modified() && !in.saturate;
    if (!same || in.condition != Condition::NONE || is_integer(in.target.type))
        return;
    in.target.type = in.source[0].type = in.target.type == Type::F ? Type::UD : Type::UW;
}

bool is_low_half(const Operand &low, const Operand &whole) {
    if (low.form == Form::IMMEDIATE || whole.form == Form::IMMEDIATE)
        return low.form == whole.form && std::uint16_t(low.integer) == std::uint16_t(whole.integer);
    return size_of(low.type) == 2 && low.offset == whole.offset;
}

/// mach and macl go on from what mul has left in the accumulator: the last instruction that writes there must be a mul
/// of the first factor and the second one's lower half, and neither factor may change in between.
bool follows_its_mul(const Kernel &kernel, const Instruction &in) {
    for (const Instruction *before = &in - 1; before >= kernel.code.data(); --before) {
        if (before->opcode == Opcode::JMPI || before->jump || before->opcode == Opcode::RET)
            return false;
        if (before->opcode == Opcode::SEND)
            continue;
        if (before->target.offset == ACC)
            return before->opcode == Opcode::MUL && before->lanes == in.lanes &&
                   before->source[0].offset == in.source[0].offset && is_low_half(before->source[1], in.source[1]);
        for (const Operand &factor : in.source)
            if (before->target.offset == factor.offset && factor.form != Form::IMMEDIATE && factor.form != Form::NONE)
                return false;
    }
    return false;
}

Handler handler_of(Kernel &kernel, Instruction &in) {
    switch (in.opcode) {
    case Opcode::SEND:
        return send_handler(in);
    case Opcode::DPAS:
        return dpas_handler(in);
    case Opcode::INVM:
    case Opcode::RSQTM:
        return macro_handler(kernel, in);
    case Opcode::CMP:
        return compare_handler(in);
    case Opcode::MOV:
        make_raw(in);
        return move_handler(in);
    default:
        break;
    }
    if (const Handler control = control_handler(in))
        return control;
    if (in.opcode == Opcode::SEL && in.predicated)
        return choice_handler(in);
    if ((in.opcode == Opcode::MACH || in.opcode == Opcode::MACL) && !follows_its_mul(kernel, in))
        return nullptr;
    bool integers = is_integer(in.target.type), floats = in.target.type == Type::F;
    for (int i = 0; i < in.sources; ++i) {
        integers = integers && is_integer(in.source[i].type);
        floats = floats && in.source[i].type == Type::F;
    }
    return integers ? integer_handler(in) : floats ? float_handler(in) : nullptr;
}

} // namespace

void select_handlers(Kernel &kernel) {
    for (Instruction &in : kernel.code) {
        in.run = handler_of(kernel, in);
        if (!in.run)
            fault(in, in.opcode == Opcode::MACH || in.opcode == Opcode::MACL ? "no mul of the same factors is before it"
                                                                             : "no such form is emulated");
        in.checked = in.opcode == Opcode::SEND ? checked_send_handler(in) : in.run;
    }
}

} // namespace xe2
