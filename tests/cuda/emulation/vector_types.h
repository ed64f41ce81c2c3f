// Emulation of CUDA's vector types, aligned as on the device.
#pragma once

struct uint3 {
  unsigned x, y, z;
};
struct int3 {
  int x, y, z;
};
struct float3 {
  float x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

// NAME2 and NAME4 of `type`, aligned to their size up to 16 bytes.
#define FASTKV_EMULATED_VECTORS(name, type)                           \
  struct alignas(2 * sizeof(type)) name##2 {                          \
    type x, y;                                                        \
  };                                                                  \
  struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4 { \
    type x, y, z, w;                                                  \
  };                                                                  \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }    \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

FASTKV_EMULATED_VECTORS(char, signed char)
FASTKV_EMULATED_VECTORS(uchar, unsigned char)
FASTKV_EMULATED_VECTORS(short, short)
FASTKV_EMULATED_VECTORS(ushort, unsigned short)
FASTKV_EMULATED_VECTORS(int, int)
FASTKV_EMULATED_VECTORS(uint, unsigned)
FASTKV_EMULATED_VECTORS(longlong, long long)
FASTKV_EMULATED_VECTORS(ulonglong, unsigned long long)
FASTKV_EMULATED_VECTORS(float, float)
FASTKV_EMULATED_VECTORS(double, double)
#undef FASTKV_EMULATED_VECTORS

inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
