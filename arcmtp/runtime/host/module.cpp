#include "kernels.hpp"
#include "repack.hpp"
#include "timing.hpp"

PYBIND11_MODULE(_host, module) {
    module.doc() = "What dpctl has no call for: kernels from SYCL source, launch lists, and the repacking of weights.";
    pybind11::module_::import("dpctl");
    arcmtp::bind_kernels(module);
    arcmtp::bind_repack(module);
    arcmtp::bind_timing(module);
}
