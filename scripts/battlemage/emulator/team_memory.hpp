// Shared local memory of a work-group; with checks, who touched which byte since the last barrier.
#pragma once

#include <cstdint>
#include <vector>

namespace xe2 {

struct TeamMemory {
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint8_t> defined; // with checks: 0xff where a byte was written

    void resize(std::size_t size, bool checked);
    /// Another group begins; with checks, all bytes hold values (0xff) or none does (0).
    void begin(std::uint8_t all_defined);
    /// All threads have met: what was touched before is in order with what follows.
    void barrier() { ++interval_; }
    /// Why thread `thread` must not touch these bytes now, or null.
    const char *touch(std::size_t at, std::size_t count, int thread, bool writes);

  private:
    struct Touch {
        std::uint32_t written = 0, read = 0; // intervals between barriers
        std::int16_t writer = -1, reader = -1;
    };
    static constexpr std::int16_t SEVERAL = -2;
    std::vector<Touch> touches_;
    std::uint32_t interval_ = 1;
};

} // namespace xe2
