// Intel's Level Zero driver, with what the card would do done here.
//
// The loader asks a driver for tables of functions. These are the driver's own, which in its mode without hardware
// checks and accepts everything and executes nothing; calls that move data or run kernels are answered by functions
// below, which call the driver first. All work is done before such a call returns, so waiting needs no hook.
#include "device.hpp"
#include "driver_table.hpp"

#include <level_zero/ze_api.h>
#include <level_zero/ze_ddi.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace xe2 {
namespace {

// The driver's own functions.
ze_device_dditable_t device_calls;
ze_command_list_dditable_t list_calls;
ze_command_list_exp_dditable_t list_exp_calls;
ze_command_queue_dditable_t queue_calls;
ze_kernel_dditable_t kernel_calls;
ze_mem_dditable_t memory_calls;
ze_module_dditable_t module_calls;

/// Does a call's work under the device's lock; a Fault ends the process.
template <class WORK> void act(WORK work) {
    Device &device = Device::instance();
    const std::lock_guard<std::recursive_mutex> guard(device.lock);
    try {
        work(device);
    } catch (const std::exception &why) {
        stop(why.what());
    }
}

std::vector<std::uint8_t> bytes_at(const void *from, std::size_t count) {
    const auto *first = static_cast<const std::uint8_t *>(from);
    return {first, first + count};
}

/// The device's name says that no card is behind it, so that nobody takes its times for a card's.
ze_result_t device_properties(ze_device_handle_t device, ze_device_properties_t *properties) {
    const ze_result_t result = device_calls.pfnGetProperties(device, properties);
    if (result == ZE_RESULT_SUCCESS)
        std::strncat(properties->name, ", emulated", ZE_MAX_DEVICE_NAME - 1 - std::strlen(properties->name));
    return result;
}

/// Bytes of memory that the card has.
std::size_t memory_size(ze_device_handle_t device) {
    std::uint32_t count = 1;
    ze_device_memory_properties_t properties{};
    properties.stype = ZE_STRUCTURE_TYPE_DEVICE_MEMORY_PROPERTIES;
    device_calls.pfnGetMemoryProperties(device, &count, &properties);
    return properties.totalSize;
}

/// The host's clock in the ticks that the driver tells for the card's.
std::uint64_t ticks_now(ze_command_list_handle_t list) {
    ze_device_handle_t device = nullptr;
    list_calls.pfnGetDeviceHandle(list, &device);
    ze_device_properties_t properties{};
    properties.stype = ZE_STRUCTURE_TYPE_DEVICE_PROPERTIES_1_2; // with which the resolution is ticks a second
    device_calls.pfnGetProperties(device, &properties);
    const std::chrono::nanoseconds now = std::chrono::steady_clock::now().time_since_epoch();
    const auto ticks = std::uint64_t(double(now.count()) / 1e9 * double(properties.timerResolution));
    return properties.timestampValidBits < 64 ? ticks & ((1ull << properties.timestampValidBits) - 1) : ticks;
}

ze_result_t create_module(ze_context_handle_t context, ze_device_handle_t device, const ze_module_desc_t *description,
                          ze_module_handle_t *module, ze_module_build_log_handle_t *log) {
    const ze_result_t result = module_calls.pfnCreate(context, device, description, module, log);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            std::size_t size = 0;
            module_calls.pfnGetNativeBinary(*module, &size, nullptr);
            std::vector<std::uint8_t> binary(size);
            module_calls.pfnGetNativeBinary(*module, &size, binary.data());
            card.add_module(*module, binary);
        });
    return result;
}
ze_result_t destroy_module(ze_module_handle_t module) {
    act([&](Device &card) { card.modules.erase(module); });
    return module_calls.pfnDestroy(module);
}

ze_result_t create_kernel(ze_module_handle_t module, const ze_kernel_desc_t *description, ze_kernel_handle_t *kernel) {
    const ze_result_t result = kernel_calls.pfnCreate(module, description, kernel);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            KernelObject &object = card.kernels[*kernel] = {};
            for (const auto &each : card.modules[module])
                if (each->name == description->pKernelName)
                    object.kernel = each;
        });
    return result;
}
ze_result_t destroy_kernel(ze_kernel_handle_t kernel) {
    act([&](Device &card) { card.kernels.erase(kernel); });
    return kernel_calls.pfnDestroy(kernel);
}
ze_result_t set_group_size(ze_kernel_handle_t kernel, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    act([&](Device &card) { card.kernels[kernel].team = {x, y, z}; });
    return kernel_calls.pfnSetGroupSize(kernel, x, y, z);
}
ze_result_t set_argument(ze_kernel_handle_t kernel, std::uint32_t index, std::size_t size, const void *value) {
    act([&](Device &card) {
        auto &arguments = card.kernels[kernel].arguments;
        if (arguments.size() <= index)
            arguments.resize(index + 1);
        arguments[index] = value ? bytes_at(value, size) : std::vector<std::uint8_t>(size);
    });
    return kernel_calls.pfnSetArgumentValue(kernel, index, size, value);
}

void launch(ze_command_list_handle_t list, ze_kernel_handle_t kernel, const ze_group_count_t &groups,
            const ze_group_size_t *team, void **arguments) {
    act([&](Device &card) {
        const KernelObject &object = card.kernels[kernel];
        const auto argument = [&](int i) {
            if (!arguments && (std::size_t(i) >= object.arguments.size() || object.arguments[i].empty()))
                throw Fault(object.kernel->name + " is launched without its argument " + std::to_string(i));
            return arguments ? static_cast<const std::uint8_t *>(arguments[i]) : object.arguments[i].data();
        };
        const Launch work = card.launch(
            object, {groups.groupCountX, groups.groupCountY, groups.groupCountZ},
            team ? std::array<std::uint32_t, 3>{team->groupSizeX, team->groupSizeY, team->groupSizeZ} : object.team,
            argument);
        card.append(list, [&card, work] { card.execute(work); });
    });
}
ze_result_t launch_kernel(ze_command_list_handle_t list, ze_kernel_handle_t kernel, const ze_group_count_t *groups,
                          ze_event_handle_t signal, std::uint32_t waits, ze_event_handle_t *events) {
    const ze_result_t result = list_calls.pfnAppendLaunchKernel(list, kernel, groups, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        launch(list, kernel, *groups, nullptr, nullptr);
    return result;
}
ze_result_t launch_with_arguments(ze_command_list_handle_t list, ze_kernel_handle_t kernel,
                                  const ze_group_count_t groups, const ze_group_size_t team, void **arguments,
                                  const void *next, ze_event_handle_t signal, std::uint32_t waits,
                                  ze_event_handle_t *events) {
    const ze_result_t result = list_calls.pfnAppendLaunchKernelWithArguments(list, kernel, groups, team, arguments,
                                                                             next, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        launch(list, kernel, groups, &team, arguments);
    return result;
}

ze_result_t copy(ze_command_list_handle_t list, void *to, const void *from, std::size_t size, ze_event_handle_t signal,
                 std::uint32_t waits, ze_event_handle_t *events) {
    const ze_result_t result = list_calls.pfnAppendMemoryCopy(list, to, from, size, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) { card.append(list, [&card, to, from, size] { card.copy(to, from, size); }); });
    return result;
}
ze_result_t fill(ze_command_list_handle_t list, void *to, const void *pattern, std::size_t pattern_size,
                 std::size_t size, ze_event_handle_t signal, std::uint32_t waits, ze_event_handle_t *events) {
    const ze_result_t result =
        list_calls.pfnAppendMemoryFill(list, to, pattern, pattern_size, size, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            const auto repeated = bytes_at(pattern, pattern_size);
            card.append(list, [&card, to, repeated, size] { card.fill(to, repeated, size); });
        });
    return result;
}
ze_result_t write_timestamp(ze_command_list_handle_t list, std::uint64_t *to, ze_event_handle_t signal,
                            std::uint32_t waits, ze_event_handle_t *events) {
    const ze_result_t result = list_calls.pfnAppendWriteGlobalTimestamp(list, to, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            card.append(list, [&card, list, to] {
                const std::uint64_t ticks = ticks_now(list);
                card.copy(to, &ticks, sizeof ticks);
            });
        });
    return result;
}

ze_result_t create_list(ze_context_handle_t context, ze_device_handle_t device,
                        const ze_command_list_desc_t *description, ze_command_list_handle_t *list) {
    const ze_result_t result = list_calls.pfnCreate(context, device, description, list);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) { card.record(*list); });
    return result;
}
ze_result_t reset_list(ze_command_list_handle_t list) {
    act([&](Device &card) { card.record(list); });
    return list_calls.pfnReset(list);
}
ze_result_t destroy_list(ze_command_list_handle_t list) {
    act([&](Device &card) { card.forget(list); });
    return list_calls.pfnDestroy(list);
}
ze_result_t append_lists(ze_command_list_handle_t to, std::uint32_t count, ze_command_list_handle_t *lists,
                         ze_event_handle_t signal, std::uint32_t waits, ze_event_handle_t *events) {
    const ze_result_t result =
        list_exp_calls.pfnImmediateAppendCommandListsExp(to, count, lists, signal, waits, events);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            for (std::uint32_t i = 0; i < count; ++i)
                card.run(lists[i]);
        });
    return result;
}
ze_result_t execute_lists(ze_command_queue_handle_t queue, std::uint32_t count, ze_command_list_handle_t *lists,
                          ze_fence_handle_t fence) {
    const ze_result_t result = queue_calls.pfnExecuteCommandLists(queue, count, lists, fence);
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) {
            for (std::uint32_t i = 0; i < count; ++i)
                card.run(lists[i]);
        });
    return result;
}

ze_result_t allocate_device(ze_context_handle_t context, const ze_device_mem_alloc_desc_t *description,
                            std::size_t size, std::size_t alignment, ze_device_handle_t device, void **memory) {
    ze_result_t result = ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY;
    act([&](Device &card) {
        if (card.memory.device_bytes() + size > memory_size(device))
            return;
        result = memory_calls.pfnAllocDevice(context, description, size, alignment, device, memory);
        if (result == ZE_RESULT_SUCCESS)
            card.memory.add_device(reinterpret_cast<std::uint64_t>(*memory), size, card.options.checks & POISON);
    });
    return result;
}
void add_host(ze_result_t result, void **memory, std::size_t size) {
    if (result == ZE_RESULT_SUCCESS)
        act([&](Device &card) { card.memory.add_host(reinterpret_cast<std::uint64_t>(*memory), size); });
}
ze_result_t allocate_host(ze_context_handle_t context, const ze_host_mem_alloc_desc_t *description, std::size_t size,
                          std::size_t alignment, void **memory) {
    const ze_result_t result = memory_calls.pfnAllocHost(context, description, size, alignment, memory);
    add_host(result, memory, size);
    return result;
}
ze_result_t allocate_shared(ze_context_handle_t context, const ze_device_mem_alloc_desc_t *device_description,
                            const ze_host_mem_alloc_desc_t *host_description, std::size_t size, std::size_t alignment,
                            ze_device_handle_t device, void **memory) {
    const ze_result_t result =
        memory_calls.pfnAllocShared(context, device_description, host_description, size, alignment, device, memory);
    add_host(result, memory, size);
    return result;
}
ze_result_t release(ze_context_handle_t context, void *memory) {
    act([&](Device &card) { card.memory.remove(reinterpret_cast<std::uint64_t>(memory)); });
    return memory_calls.pfnFree(context, memory);
}
ze_result_t release_extended(ze_context_handle_t context, const ze_memory_free_ext_desc_t *description, void *memory) {
    act([&](Device &card) { card.memory.remove(reinterpret_cast<std::uint64_t>(memory)); });
    return memory_calls.pfnFreeExt(context, description, memory);
}

/// The SYCL runtime makes memory resident on every new context and gives up when that fails, as it does without
/// hardware.
ze_result_t make_resident(ze_context_handle_t, ze_device_handle_t, void *, std::size_t) { return ZE_RESULT_SUCCESS; }

} // namespace
} // namespace xe2

using namespace xe2;

extern "C" {
#pragma GCC visibility push(default)

ze_result_t zeGetContextProcAddrTable(ze_api_version_t version, ze_context_dditable_t *entries) {
    return table("zeGetContextProcAddrTable", version, entries, static_cast<ze_context_dditable_t *>(nullptr), [&] {
        entries->pfnMakeMemoryResident = make_resident;
        entries->pfnEvictMemory = make_resident;
    });
}

ze_result_t zeGetDeviceProcAddrTable(ze_api_version_t version, ze_device_dditable_t *entries) {
    return table("zeGetDeviceProcAddrTable", version, entries, &device_calls,
                 [&] { entries->pfnGetProperties = device_properties; });
}

ze_result_t zeGetModuleProcAddrTable(ze_api_version_t version, ze_module_dditable_t *entries) {
    return table("zeGetModuleProcAddrTable", version, entries, &module_calls, [&] {
        entries->pfnCreate = create_module;
        entries->pfnDestroy = destroy_module;
        REFUSE(entries, pfnDynamicLink);
        REFUSE(entries, pfnGetGlobalPointer);
        REFUSE(entries, pfnGetFunctionPointer);
    });
}

ze_result_t zeGetKernelProcAddrTable(ze_api_version_t version, ze_kernel_dditable_t *entries) {
    return table("zeGetKernelProcAddrTable", version, entries, &kernel_calls, [&] {
        entries->pfnCreate = create_kernel;
        entries->pfnDestroy = destroy_kernel;
        entries->pfnSetGroupSize = set_group_size;
        entries->pfnSetArgumentValue = set_argument;
    });
}

ze_result_t zeGetMemProcAddrTable(ze_api_version_t version, ze_mem_dditable_t *entries) {
    return table("zeGetMemProcAddrTable", version, entries, &memory_calls, [&] {
        entries->pfnAllocDevice = allocate_device;
        entries->pfnAllocHost = allocate_host;
        entries->pfnAllocShared = allocate_shared;
        entries->pfnFree = release;
        entries->pfnFreeExt = release_extended;
    });
}

ze_result_t zeGetCommandQueueProcAddrTable(ze_api_version_t version, ze_command_queue_dditable_t *entries) {
    return table("zeGetCommandQueueProcAddrTable", version, entries, &queue_calls,
                 [&] { entries->pfnExecuteCommandLists = execute_lists; });
}

ze_result_t zeGetCommandListExpProcAddrTable(ze_api_version_t version, ze_command_list_exp_dditable_t *entries) {
    return table("zeGetCommandListExpProcAddrTable", version, entries, &list_exp_calls, [&] {
        entries->pfnImmediateAppendCommandListsExp = append_lists;
        REFUSE(entries, pfnUpdateMutableCommandsExp);
        REFUSE(entries, pfnUpdateMutableCommandKernelsExp);
    });
}

ze_result_t zeGetCommandListProcAddrTable(ze_api_version_t version, ze_command_list_dditable_t *entries) {
    return table("zeGetCommandListProcAddrTable", version, entries, &list_calls, [&] {
        entries->pfnCreate = create_list;
        entries->pfnReset = reset_list;
        entries->pfnDestroy = destroy_list;
        entries->pfnAppendLaunchKernel = launch_kernel;
        entries->pfnAppendLaunchKernelWithArguments = launch_with_arguments;
        entries->pfnAppendMemoryCopy = copy;
        entries->pfnAppendMemoryFill = fill;
        entries->pfnAppendWriteGlobalTimestamp = write_timestamp;
        REFUSE(entries, pfnAppendLaunchKernelWithParameters);
        REFUSE(entries, pfnAppendLaunchCooperativeKernel);
        REFUSE(entries, pfnAppendLaunchKernelIndirect);
        REFUSE(entries, pfnAppendLaunchMultipleKernelsIndirect);
        REFUSE(entries, pfnAppendMemoryCopyRegion);
        REFUSE(entries, pfnAppendMemoryCopyFromContext);
        REFUSE(entries, pfnAppendMemoryCopyWithParameters);
        REFUSE(entries, pfnAppendMemoryFillWithParameters);
        REFUSE(entries, pfnAppendImageCopy);
        REFUSE(entries, pfnAppendImageCopyRegion);
        REFUSE(entries, pfnAppendImageCopyToMemory);
        REFUSE(entries, pfnAppendImageCopyFromMemory);
        REFUSE(entries, pfnAppendImageCopyToMemoryExt);
        REFUSE(entries, pfnAppendImageCopyFromMemoryExt);
        REFUSE(entries, pfnAppendQueryKernelTimestamps);
        REFUSE(entries, pfnImmediateAppendCommandListsWithParameters);
        REFUSE(entries, pfnAppendGraphExt);
        REFUSE(entries, pfnAppendHostFunction);
    });
}

/// What kernels have done since the last reset, as JSON in a file; 0, or 1 where it cannot be written.
int emulator_write_counts(const char *path) {
    std::FILE *const file = std::fopen(path, "w");
    if (!file)
        return 1;
    act([&](Device &card) { std::fputs(card.report().c_str(), file); });
    return std::fclose(file) != 0;
}
void emulator_reset_counts() {
    act([](Device &card) { card.reset_counts(); });
}

__attribute__((destructor)) void write_counts_at_exit() {
    const char *const path = std::getenv("ARCMTP_EMULATOR_COUNTS");
    if (path && *path && emulator_write_counts(path))
        std::fprintf(stderr, "emulator: %s cannot be written\n", path);
}

#pragma GCC visibility pop
} // extern "C"
