#include "call.h"

#include "launch.hpp"
#include "thread.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace {

/// The caller's registers, put into the threads and taken out of them.
class Given : public xe2::Registers {
  public:
    explicit Given(const EmulatorCall &call) : call_(call), bytes_(call.registers_per_thread * xe2::REGISTER) {}

    void begin(xe2::Thread &thread, std::uint32_t group) override {
        const std::size_t at = place(thread, group);
        std::uint8_t header[32];
        std::memcpy(header, thread.bytes, sizeof header);
        std::memcpy(thread.bytes, call_.registers + at * bytes_, bytes_);
        std::memcpy(thread.bytes, header, sizeof header);
        std::memcpy(thread.bytes + xe2::ACC, call_.special + at * EMULATOR_SPECIAL_BYTES, EMULATOR_SPECIAL_BYTES);
        std::memset(thread.defined + xe2::ACC, 0xff, EMULATOR_SPECIAL_BYTES);
        if (!call_.registers_defined)
            std::memset(thread.defined, 0xff, bytes_);
        else
            std::transform(call_.registers_defined + at * bytes_, call_.registers_defined + (at + 1) * bytes_,
                           thread.defined, [](std::uint8_t defined) { return defined ? 0xff : 0; });
    }
    void end(const xe2::Thread &thread, std::uint32_t group) override {
        const std::size_t at = place(thread, group);
        std::memcpy(call_.registers + at * bytes_, thread.bytes, bytes_);
        std::memcpy(call_.special + at * EMULATOR_SPECIAL_BYTES, thread.bytes + xe2::ACC, EMULATOR_SPECIAL_BYTES);
        if (call_.registers_defined && (call_.checks & xe2::POISON))
            std::transform(thread.defined, thread.defined + bytes_, call_.registers_defined + at * bytes_,
                           [](std::uint8_t defined) { return defined == 0xff; });
    }

  private:
    const EmulatorCall &call_;
    const std::size_t bytes_;
    std::size_t place(const xe2::Thread &thread, std::uint32_t group) const {
        return std::size_t(group) * call_.threads + thread.index;
    }
};

void run(EmulatorCall &call) {
    static_assert(EMULATOR_SPECIAL_BYTES == xe2::SPECIAL_BYTES, "call.h says how large the special registers are");
    auto kernel = std::make_shared<xe2::Kernel>();
    kernel->name = "code";
    kernel->team_memory = int(call.slm_bytes);
    kernel->registers = int(call.registers_per_thread);
    try {
        xe2::decode(*kernel, call.code, call.code_bytes);
    } catch (const xe2::Fault &why) {
        throw xe2::Fault(kernel->name + " " + why.what());
    }
    xe2::Memory memory;
    for (std::uint32_t i = 0; i < call.region_count; ++i)
        memory.add_mapped(call.regions[i].address, call.regions[i].bytes, call.regions[i].data);
    xe2::Counts counts;
    Given registers(call);
    execute({kernel, {call.groups, 1, 1}, {call.threads, 1, 1}, {}}, memory, {call.checks, call.seed}, counts,
            &registers);
    call.instructions = std::accumulate(counts.executed.begin(), counts.executed.end(), std::uint64_t(0));
    for (int i = 0; i < xe2::CASES; ++i) {
        call.thread_cycles[i] = counts.thread_cycles[i];
        call.longest_cycles[i] = counts.longest_cycles[i];
    }
}

} // namespace

int emulator_call(EmulatorCall *call, char *message, std::uint64_t message_bytes) {
    try {
        run(*call);
        return 0;
    } catch (const std::exception &why) {
        std::snprintf(message, message_bytes, "emulator: %s", why.what());
        return 1;
    }
}
