#include "memory.hpp"

#include "dpctl4pybind11.hpp"
#include <pybind11/numpy.h>
#include <sycl/sycl.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sys/mman.h>

namespace py = pybind11;

namespace arcmtp {
namespace {

using Address = std::uintptr_t; // on the device
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;

constexpr std::size_t LITTLE = 1 << 20;

/// Of a CPU all memory is the host's. A command of its driver takes 35 µs, however little it moves; of much it moves
/// parts side by side. Who waits for the command alone also lends the driver no thread for the kernels before it.
bool host_does_it(const sycl::queue &queue, std::size_t bytes) { return bytes < LITTLE && queue.get_device().is_cpu(); }

void copy_bytes(sycl::queue &queue, void *to, const void *from, std::size_t bytes) {
    const py::gil_scoped_release release;
    if (host_does_it(queue, bytes)) {
        queue.wait();
        std::memcpy(to, from, bytes);
    } else
        queue.memcpy(to, from, bytes).wait();
}

void write(sycl::queue queue, Address to, const Bytes &source) {
    copy_bytes(queue, reinterpret_cast<void *>(to), source.data(), source.nbytes());
}

void read(sycl::queue queue, Address source, Bytes target) {
    copy_bytes(queue, target.mutable_data(), reinterpret_cast<const void *>(source), target.nbytes());
}

void copy(sycl::queue queue, Address to, Address source, std::size_t bytes) {
    copy_bytes(queue, reinterpret_cast<void *>(to), reinterpret_cast<const void *>(source), bytes);
}

using Copies = py::array_t<std::uint64_t, py::array::c_style>; // [n][3]: to, from, bytes

void copy_all(sycl::queue queue, const Copies &copies) {
    const auto *words = copies.data();
    const auto count = copies.size() / 3;
    const py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < count; ++i, words += 3)
        queue.memcpy(reinterpret_cast<void *>(words[0]), reinterpret_cast<const void *>(words[1]), words[2]);
    queue.wait();
}

void fill(sycl::queue queue, Address to, int byte, std::size_t bytes) {
    const py::gil_scoped_release release;
    if (host_does_it(queue, bytes)) {
        queue.wait();
        std::memset(reinterpret_cast<void *>(to), byte, bytes);
    } else
        queue.memset(reinterpret_cast<void *>(to), byte, bytes).wait();
}

void use_huge_pages(Address address, std::size_t bytes) {
    const Address page = 4096, first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    if (last > first)
        madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
}

} // namespace

void bind_memory(py::module_ &module) {
    module.def("write", &write, py::arg("queue"), py::arg("to"), py::arg("source"),
               "Copy host bytes to a device address and wait.");
    module.def("read", &read, py::arg("queue"), py::arg("source"), py::arg("target"),
               "Copy bytes from a device address and wait.");
    module.def("copy", &copy, py::arg("queue"), py::arg("to"), py::arg("source"), py::arg("bytes"),
               "Copy bytes from one device address to another and wait.");
    module.def("copy_all", &copy_all, py::arg("queue"), py::arg("copies"),
               "Copy between device addresses, uint64 [n][3]: to, from, bytes; wait once for all of them.");
    module.def("fill", &fill, py::arg("queue"), py::arg("to"), py::arg("byte"), py::arg("bytes"),
               "Set bytes from a device address on and wait.");
    module.def("use_huge_pages", &use_huge_pages, py::arg("address"), py::arg("bytes"),
               "Ask Linux for large pages there; it may not have any.");
}

} // namespace arcmtp
