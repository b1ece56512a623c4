// The units of a vector engine that execute instructions.
#pragma once

#include <cstdint>

namespace xe2 {

struct Instruction;

/// By the types that instructions are written with: a copy of floats takes the float pipe.
enum class Pipe : std::uint8_t { FLOAT, INTEGER, INTEGER64, MATH, DPAS, SEND, BRANCH, SYNC };
constexpr const char *PIPE_NAMES[] = {"float", "integer", "integer64", "math", "dpas", "send", "branch", "sync"};

Pipe pipe_of(const Instruction &in);
/// Registers of 64 bytes that an instruction's widest operand fills, which its pipe takes one after the other; of dpas
/// its repeat count.
int slots_of(const Instruction &in);

} // namespace xe2
