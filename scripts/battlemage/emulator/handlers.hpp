// One file of handlers a class of instructions; each gives a handler for the forms that it knows, null for others.
#pragma once

#include "instruction.hpp"

namespace xe2 {

Handler float_handler(const Instruction &in);           // arithmetic whose target is float32
Handler integer_handler(const Instruction &in);         // arithmetic and logic whose operands are integers
Handler compare_handler(const Instruction &in);         // cmp
Handler choice_handler(const Instruction &in);          // sel by predicate
Handler move_handler(const Instruction &in);            // mov and its conversions
Handler macro_handler(Kernel &kernel, Instruction &in); // math.invm, math.rsqtm with the madm behind them
Handler control_handler(const Instruction &in);
Handler dpas_handler(const Instruction &in);
Handler send_handler(const Instruction &in);
Handler checked_send_handler(const Instruction &in);

/// Whether a condition holds of two numbers, or of the numbers of each lane.
template <class V> inline auto holds(Condition condition, V a, V b) {
    switch (condition) {
    case Condition::EQ:
        return a == b;
    case Condition::NE:
        return a != b;
    case Condition::GT:
        return a > b;
    case Condition::GE:
        return a >= b;
    case Condition::LT:
        return a < b;
    default:
        return a <= b;
    }
}

/// From here on the host rounds as the control register says; a fault if that is not known.
void take_control_register(const Thread &t, const Instruction &in);
/// Where a thread gives way to another one, for which the host would round wrongly otherwise.
void must_round_to_nearest(const Thread &t, const Instruction &in);

} // namespace xe2
