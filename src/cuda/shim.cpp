// SPDX-License-Identifier: MPL-2.0
// What the Rust bindings of libtorch lack on CUDA: streams, graphs, asynchronous copies and the allocator.
// A library of its own, loaded only where a CUDA device is used. Every function returns 0, or 1 with the
// reason to be had from fastganseg_cuda_error(); none lets an exception through.

#include <ATen/Functions.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/api/include/torch/version.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>

namespace {

thread_local std::string reason;

template <typename F>
int attempt(F&& f) {
  try {
    f();
    return 0;
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  } catch (...) {
    reason = "unknown C++ exception";
  }
  return 1;
}

struct Stream {
  c10::cuda::CUDAStream stream;
  // The current device to return to, or -1.
  c10::DeviceIndex device = -1;
};

}  // namespace

extern "C" {

const char* fastganseg_cuda_error() {
  return reason.c_str();
}

// The libtorch that this was compiled against; C++ objects are exchanged with no other.
const char* fastganseg_cuda_libtorch() {
  return TORCH_VERSION;
}

int fastganseg_cuda_stream_new(int device, Stream** out) {
  return attempt([&] {
    *out = new Stream{c10::cuda::getStreamFromPool(/*isHighPriority=*/true, static_cast<c10::DeviceIndex>(device))};
  });
}

void fastganseg_cuda_stream_free(Stream* stream) {
  delete stream;
}

// Makes the stream and its device this thread's current ones and gives those that were before. Graphs are captured on the
// current device.
int fastganseg_cuda_stream_enter(Stream* stream, Stream** before) {
  return attempt([&] {
    const auto index = stream->stream.device_index();
    auto previous = std::make_unique<Stream>(
        Stream{c10::cuda::getCurrentCUDAStream(index), c10::cuda::current_device()});
    c10::cuda::set_device(index);
    c10::cuda::setCurrentCUDAStream(stream->stream);
    *before = previous.release();
  });
}

int fastganseg_cuda_stream_leave(Stream* before) {
  std::unique_ptr<Stream> owned(before);
  return attempt([&] {
    c10::cuda::setCurrentCUDAStream(owned->stream);
    if (owned->device >= 0) {
      c10::cuda::set_device(owned->device);
    }
  });
}

int fastganseg_cuda_stream_wait(Stream* stream) {
  return attempt([&] { stream->stream.synchronize(); });
}

// Without waiting where one side is page-locked memory.
int fastganseg_cuda_copy(at::Tensor* to, const at::Tensor* from) {
  return attempt([&] { to->copy_(*from, /*non_blocking=*/true); });
}

// Graphs of one network run one after the other and leave nothing in the pool that another reads.
int fastganseg_cuda_pool(uint64_t* first, uint64_t* second) {
  return attempt([&] {
    auto pool = at::cuda::graph_pool_handle();
    *first = pool.first;
    *second = pool.second;
  });
}

int fastganseg_cuda_graph_begin(uint64_t first, uint64_t second, at::cuda::CUDAGraph** out) {
  return attempt([&] {
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    // Other threads of the application may go on using the device.
    graph->capture_begin({first, second}, cudaStreamCaptureModeThreadLocal);
    *out = graph.release();
  });
}

int fastganseg_cuda_graph_end(at::cuda::CUDAGraph* graph) {
  return attempt([&] { graph->capture_end(); });
}

int fastganseg_cuda_graph_replay(at::cuda::CUDAGraph* graph) {
  return attempt([&] { graph->replay(); });
}

void fastganseg_cuda_graph_free(at::cuda::CUDAGraph* graph) {
  attempt([&] { delete graph; });
}

int fastganseg_cuda_empty_cache() {
  return attempt([] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

// How many bytes more than now libtorch may take from the driver, or with 0 all there are. cuDNN, which tries
// out algorithms with as much work space as it can get, makes do with what is left.
int fastganseg_cuda_limit(int device, uint64_t more) {
  return attempt([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    double share = 1.0;
    if (more > 0) {
      size_t free = 0, total = 0;
      c10::cuda::CUDAGuard guard(index);
      C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
      auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index);
      const double most = static_cast<double>(stats.reserved_bytes[0].current) + static_cast<double>(more);
      share = std::min(1.0, most / static_cast<double>(total));
    }
    c10::cuda::CUDACachingAllocator::setMemoryFraction(share, index);
  });
}

// Bytes in tensors now, bytes taken from the driver now, and the most of them so far.
int fastganseg_cuda_memory(int device, uint64_t* allocated, uint64_t* reserved, uint64_t* peak) {
  return attempt([&] {
    auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    *allocated = static_cast<uint64_t>(stats.allocated_bytes[0].current);
    *reserved = static_cast<uint64_t>(stats.reserved_bytes[0].current);
    *peak = static_cast<uint64_t>(stats.reserved_bytes[0].peak);
  });
}

}  // extern "C"
