// Intel's assembler library, which turns machine code into text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace xe2 {

/// One instruction a line, each with its offset in front: "/* [0040]  */ (W) mov (16|M0) r1.0<1>:f  0x0:f {A@1}".
std::string disassemble(const std::uint8_t *code, std::size_t bytes);

} // namespace xe2
