#include "compiler.hpp"
#include "graph.hpp"
#include "launch_list.hpp"
#include "memory.hpp"
#include "repack.hpp"
#include "timing.hpp"

PYBIND11_MODULE(_host, module) {
    module.doc() = "What dpctl has no call for: kernels from SYCL source, launch lists, graphs, time marks, copies "
                   "between addresses, and the repacking of weights.";
    pybind11::module_::import("dpctl");
    arcmtp::bind_compiler(module);
    arcmtp::bind_launch_list(module);
    arcmtp::bind_graph(module);
    arcmtp::bind_timing(module);
    arcmtp::bind_memory(module);
    arcmtp::bind_repack(module);
}
