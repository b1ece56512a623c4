#include "timing.hpp"

#include "dpctl4pybind11.hpp"
#include <pybind11/stl.h>
#include <sycl/ext/oneapi/experimental/profiling_tag.hpp>

namespace py = pybind11;

namespace arcmtp {

bool takes_profiling_tags(const sycl::device &device) {
    return device.has(sycl::aspect::ext_oneapi_queue_profiling_tag);
}

TimeMarks::TimeMarks(const sycl::queue &queue, std::size_t capacity)
    : queue_(queue), ring_(capacity),
      word_(sycl::malloc_device<int>(1, queue), [queue](int *word) { sycl::free(word, queue); }) {}

std::uint64_t TimeMarks::mark() {
    ring_[count_ % ring_.size()] = sycl::ext::oneapi::experimental::submit_profiling_tag(queue_);
    return count_++;
}

std::uint64_t TimeMarks::submit(const LaunchList &launches) {
    queue_.memset(word_.get(), 0, sizeof(int));
    const std::uint64_t first = mark();
    for (const Launch &launch : launches.launches()) {
        launch.submit(queue_);
        mark();
    }
    return first;
}

std::optional<std::uint64_t> TimeMarks::nanoseconds(std::uint64_t number) const {
    using namespace sycl::info;
    if (number >= count_ || number + ring_.size() < count_)
        return std::nullopt;
    const sycl::event &mark = ring_[number % ring_.size()];
    if (mark.get_info<event::command_execution_status>() != event_command_status::complete)
        return std::nullopt;
    return mark.get_profiling_info<event_profiling::command_end>();
}

std::optional<double> TimeMarks::microseconds(std::uint64_t first, std::uint64_t last) const {
    const auto began = nanoseconds(first), ended = nanoseconds(last);
    if (!began || !ended)
        return std::nullopt;
    return (double(*ended) - double(*began)) / 1e3;
}

void bind_timing(py::module_ &module) {
    module.def("takes_profiling_tags", &takes_profiling_tags, py::arg("device"));
    py::class_<TimeMarks>(module, "TimeMarks")
        .def(py::init<const sycl::queue &, std::size_t>(), py::arg("queue"), py::arg("capacity"))
        .def("mark", &TimeMarks::mark)
        .def(
            "submit",
            [](TimeMarks &self, const LaunchList &launches) {
                py::gil_scoped_release release;
                return self.submit(launches);
            },
            py::arg("launches"))
        .def("microseconds", &TimeMarks::microseconds, py::arg("first"), py::arg("last"));
}

} // namespace arcmtp
