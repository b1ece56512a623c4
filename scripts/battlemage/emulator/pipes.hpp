// The units of a vector engine that execute instructions, and what its compiler writes of their order.
#pragma once

#include <cstdint>

namespace xe2 {

struct Instruction;

/// By the types that instructions are written with: a copy of floats takes the float pipe. The first four execute in
/// order and take a register of 64 bytes a cycle (MATH: 4 cycles).
enum class Pipe : std::uint8_t { FLOAT, INTEGER, INTEGER64, MATH, DPAS, SEND, BRANCH, SYNC };
constexpr int IN_ORDER = 4, PIPES = 8;
constexpr const char *PIPE_NAMES[PIPES] = {"float", "integer", "integer64", "math", "dpas", "send", "branch", "sync"};

Pipe pipe_of(const Instruction &in);
/// Registers of 64 bytes that an instruction's widest operand fills, which its pipe takes one after the other; of dpas
/// its repeat count.
int slots_of(const Instruction &in);

/// What an instruction waits for, from text as "{Compacted,F@2,$3.dst}": results of pipes in order by how many
/// instructions of the pipe lie between, others by the token that their instruction has.
struct Annotation {
    std::uint8_t distance = 0;           // 0: for no pipe
    std::uint8_t pipes = 0;              // a bit for each that executes in order; none: the instruction's own, or all
    std::uint32_t written = 0, read = 0; // bits of tokens: their results are there; their operands have been read
    std::int8_t token = -1;              // of the instruction itself
};

} // namespace xe2
