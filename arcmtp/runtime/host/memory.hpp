// Copies between host and device addresses, which dpctl has only for whole allocations.
#pragma once

#include <pybind11/pybind11.h>

namespace arcmtp {

// Adds `write`, `read`, `copy`, `fill` and `use_huge_pages`.
void bind_memory(pybind11::module_ &module);

} // namespace arcmtp
