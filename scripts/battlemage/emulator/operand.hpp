#pragma once

#include "instruction.hpp"

namespace xe2 {

/// A fault where the text is of no known form.
Operand operand(std::string text);
/// Of math.invm, math.rsqtm and madm: "r5.mme2:f"; `integer` is the number behind mme, -1 for nomme.
Operand macro_operand(std::string text);
/// Of "f1.0", in Thread::bytes; of a send's "r12" or "r12:2".
int flag_place(const std::string &text);
int register_place(const std::string &text);

} // namespace xe2
