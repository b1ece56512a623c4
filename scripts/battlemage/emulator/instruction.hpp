// A kernel of Xe2 machine code, decoded: what its instructions do, to which bytes of a thread.
#pragma once

#include "pipes.hpp"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace xe2 {

enum class Type : std::uint8_t { UD, D, UW, W, UB, B, UQ, Q, F, HF, V, UV, NONE };

inline int size_of(Type type) {
    constexpr int BYTES[] = {4, 4, 2, 2, 1, 1, 8, 8, 4, 2, 2, 2, 0};
    return BYTES[int(type)];
}
inline bool is_integer(Type type) { return type < Type::F || type == Type::V || type == Type::UV; }
inline bool is_signed(Type type) {
    return type == Type::D || type == Type::W || type == Type::B || type == Type::Q || type == Type::V;
}

// Where a thread's registers lie in `Thread::bytes`.
constexpr int REGISTER = 64, MAX_REGISTERS = 256;
constexpr int ACC = MAX_REGISTERS * REGISTER; // acc0 … acc15
constexpr int A0 = ACC + 16 * REGISTER, FLAGS = A0 + REGISTER, CR0 = FLAGS + REGISTER;
constexpr int SPECIAL_BYTES = CR0 + REGISTER - ACC;
constexpr int NULL_REGISTER = CR0 + REGISTER; // written by many, read by none
constexpr int THREAD_BYTES = NULL_REGISTER + 8 * REGISTER;

/// How an operand's elements lie: one behind the other, one for all lanes, by strides, at an address in a0, or nowhere.
enum class Form : std::uint8_t { CONTIGUOUS, SCALAR, STRIDED, INDIRECT, IMMEDIATE, LANES, NONE };

struct Operand {
    Type type = Type::NONE;
    Form form = Form::NONE;
    bool negate = false, absolute = false, invert = false;
    std::uint8_t vertical = 0, width = 1, horizontal = 1; // strides in elements: <vertical; width, horizontal>
    std::int16_t displacement = 0;                        // added to a0 where indirect
    std::int32_t offset = NULL_REGISTER;                  // in Thread::bytes: of the first element, or of a0's
    std::int64_t integer = 0;                             // an immediate, or eight nibbles (LANES)
    float real = 0;
    std::uint8_t nibble_step = 1;

    bool modified() const { return negate || absolute || invert; }
};

enum class Opcode : std::uint8_t {
    MOV,
    ADD,
    ADD3,
    MUL,
    MAD,
    MAC,
    MACH,
    MACL,
    SEL,
    CMP,
    AND,
    OR,
    XOR,
    NOT,
    SHL,
    SHR,
    ASR,
    BFN,
    BFREV,
    LZD,
    RNDE,
    INV,
    INVM,
    RSQTM,
    MADM,
    DPAS,
    SEND,
    JMPI,
    GOTO,
    JOIN,
    CALL,
    RET,
    SYNC_BAR,
    SYNC,
    NOP,
    ILLEGAL
};

enum class Condition : std::uint8_t { NONE, EQ, NE, GT, GE, LT, LE, EO };

enum class Message : std::uint8_t { LOAD, STORE, ATOMIC_INC, ATOMIC_ADD, FENCE, SIGNAL, END_OF_THREAD };
enum class Space : std::uint8_t { GLOBAL, TEAM, ARGUMENTS };

/// What a send asks of a shared function.
struct Send {
    Message message = Message::END_OF_THREAD;
    Space space = Space::GLOBAL;
    bool block = false;                                   // one run of `count` elements, whatever the lanes
    bool wide = false;                                    // addresses of 64 bits
    bool evict = false;                                   // a fence that drops what the first cache holds
    std::uint8_t bytes = 4, memory_bytes = 4, count = 1;  // of an element in registers and in memory; elements a lane
    std::int32_t displacement = 0, address = 0, data = 0; // the registers by their place in Thread::bytes
};

struct Thread;
struct Instruction;
using Handler = const Instruction *(*)(Thread &, const Instruction *);

struct Instruction {
    Handler run = nullptr;     // the next instruction, or none where the thread stops
    Handler checked = nullptr; // the same with the checks of poison and races, where these differ
    Opcode opcode = Opcode::ILLEGAL;
    Condition condition = Condition::NONE;
    std::uint8_t lanes = 1, sources = 0, function = 0; // bfn's truth table
    std::uint8_t rows = 0, weight_bits = 0;            // of dpas
    bool signed_weights = false;                       // the same
    bool saturate = false, predicated = false, inverse = false;
    std::uint16_t predicate = 0, flag = 0; // places in Thread::bytes
    Operand target, source[3];
    Send send;
    const Instruction *jump = nullptr;
    Pipe pipe = Pipe::SYNC;
    int slots = 1; // of the pipe
    Annotation annotation;
    int jump_offset = 0, offset = 0; // bytes of machine code from the kernel's beginning
    std::string text;
};

struct Argument {
    std::string kind;
    int offset = 0, size = 0, index = -1, source_offset = 0;
};

struct Kernel {
    std::string name;
    int team_memory = 0, registers = 128, argument_bytes = 0; // of memory in front of the threads' own arguments
    std::vector<Argument> arguments;
    std::vector<Instruction> code;
};

/// What the emulator does not know or a program must not do: one line.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};
[[noreturn]] void fault(const Instruction &in, const std::string &what); // names the instruction and its place

/// The kernels of a module in the driver's native format.
std::vector<std::shared_ptr<Kernel>> read_module(const std::uint8_t *elf, std::size_t bytes);
/// Decode machine code into `kernel.code`.
void decode(Kernel &kernel, const std::uint8_t *code, std::size_t bytes);
/// Find the handlers of a decoded instruction; a fault if it is of no known form.
void select_handlers(Kernel &kernel);

} // namespace xe2
