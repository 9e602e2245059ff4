// SPDX-License-Identifier: MPL-2.0
// libtorch contains gloo, but its wheel lacks gloo's headers. These declarations are all that ProcessGroupGloo.hpp
// needs to be included. Objects of these types are made and used inside libtorch only.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
