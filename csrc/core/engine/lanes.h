// How many numbers of 32 bits a vector of the including file's ISA holds. For files that one ISA's file includes.
#pragma once

namespace lrnn {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

}  // namespace
}  // namespace lrnn
