#include "team_memory.hpp"

#include <algorithm>

namespace xe2 {

void TeamMemory::resize(std::size_t size, bool checked) {
    bytes.resize(size);
    if (checked) {
        defined.resize(size);
        touches_.resize(size);
    }
}

void TeamMemory::begin(std::uint8_t all_defined) {
    barrier();
    std::fill(defined.begin(), defined.end(), all_defined);
}

const char *TeamMemory::touch(std::size_t at, std::size_t count, int thread, bool writes) {
    for (Touch *touch = &touches_[at]; touch != &touches_[at] + count; ++touch) {
        if (touch->written == interval_ && touch->writer != thread)
            return writes ? "two threads write one byte of team memory without a barrier between"
                          : "a thread reads team memory that another one wrote without a barrier between";
        if (writes) {
            if (touch->read == interval_ && touch->reader != thread)
                return "a thread writes team memory that another one read without a barrier between";
            touch->written = interval_;
            touch->writer = std::int16_t(thread);
        } else {
            touch->reader = touch->read == interval_ && touch->reader != thread ? SEVERAL : std::int16_t(thread);
            touch->read = interval_;
        }
    }
    return nullptr;
}

} // namespace xe2
