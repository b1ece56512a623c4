#pragma once

#include "launch.hpp"

namespace xe2 {

/// What a kernel has done over all its launches, as one JSON object.
std::string report_of(const Kernel &kernel, const Counts &counts);

} // namespace xe2
