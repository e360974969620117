// What nvcc and NVRTC know without being told, for clang's CUDA compiler (clang -x cuda -nocudainc -nocudalib): function
// attributes, thread numbers, and the few built-in functions that ptx/ calls. Other compilers skip this file.
#pragma once

#if defined(__clang__) && defined(__CUDA__) && !defined(__CUDACC_RTC__) && !defined(__CLANG_CUDA_RUNTIME_WRAPPER_H__)

#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))

struct RegardThread {
  struct {
    __device__ __forceinline__ operator unsigned() const { return __nvvm_read_ptx_sreg_tid_x(); }
  } x;
};
struct RegardBlock {
  struct {
    __device__ __forceinline__ operator unsigned() const { return __nvvm_read_ptx_sreg_ctaid_x(); }
  } x;
  struct {
    __device__ __forceinline__ operator unsigned() const { return __nvvm_read_ptx_sreg_ctaid_y(); }
  } y;
  struct {
    __device__ __forceinline__ operator unsigned() const { return __nvvm_read_ptx_sreg_ctaid_z(); }
  } z;
};
struct RegardGrid {
  struct {
    __device__ __forceinline__ operator unsigned() const { return __nvvm_read_ptx_sreg_nctaid_x(); }
  } x;
};
#define threadIdx (RegardThread{})
#define blockIdx (RegardBlock{})
#define gridDim (RegardGrid{})

__device__ __forceinline__ int __syncthreads_or(int x) { return __nvvm_bar0_or(x); }
__device__ __forceinline__ void __syncwarp() { __nvvm_bar_warp_sync(0xffffffffu); }

__device__ __forceinline__ int __shfl_xor_sync(unsigned lanes, int x, int mask) {
  return __nvvm_shfl_sync_bfly_i32(lanes, x, mask, 31);
}
__device__ __forceinline__ unsigned __shfl_xor_sync(unsigned lanes, unsigned x, int mask) {
  return static_cast<unsigned>(__shfl_xor_sync(lanes, static_cast<int>(x), mask));
}
__device__ __forceinline__ float __shfl_xor_sync(unsigned lanes, float x, int mask) {
  return __nvvm_shfl_sync_bfly_f32(lanes, x, mask, 31);
}
__device__ __forceinline__ int __shfl_sync(unsigned lanes, int x, int source) {
  return __nvvm_shfl_sync_idx_i32(lanes, x, source, 31);
}
__device__ __forceinline__ unsigned __shfl_sync(unsigned lanes, unsigned x, int source) {
  return static_cast<unsigned>(__shfl_sync(lanes, static_cast<int>(x), source));
}
__device__ __forceinline__ float __shfl_sync(unsigned lanes, float x, int source) {
  return __nvvm_shfl_sync_idx_f32(lanes, x, source, 31);
}
__device__ __forceinline__ unsigned __ballot_sync(unsigned lanes, bool x) { return __nvvm_vote_ballot_sync(lanes, x); }

__device__ __forceinline__ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
__device__ __forceinline__ float __fdiv_rn(float a, float b) { return __nvvm_div_rn_f(a, b); }
__device__ __forceinline__ float fmaxf(float a, float b) { return __nvvm_fmax_f(a, b); }
__device__ __forceinline__ float fabsf(float x) { return __builtin_fabsf(x); }
__device__ __forceinline__ unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
__device__ __forceinline__ void atomicOr(unsigned* word, unsigned bits) {
  asm volatile("red.global.or.b32 [%0], %1;" : : "l"(word), "r"(bits) : "memory");
}
__device__ __forceinline__ unsigned long __cvta_generic_to_shared(const void* pointer) {
  unsigned long address;
  asm("cvta.to.shared.u64 %0, %1;" : "=l"(address) : "l"(pointer));
  return address;
}

#endif
