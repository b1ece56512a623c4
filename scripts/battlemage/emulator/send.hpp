#pragma once

#include "instruction.hpp"

namespace xe2 {

/// What a send does, from the words that Intel's assembler library gives it: "wr:1+0, rd:4;
/// load.ugm.d32x64t.a64.flat[A+0x40]".
Send describe_send(const std::string &comment, int lanes);

} // namespace xe2
