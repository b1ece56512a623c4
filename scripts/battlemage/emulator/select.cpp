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
            fault(in, "no such form is emulated");
        in.checked = in.opcode == Opcode::SEND ? checked_send_handler(in) : in.run;
    }
}

} // namespace xe2
