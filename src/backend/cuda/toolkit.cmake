# The CUDA compiler and libraries for -DFASTKV_CUDA=ON, checked with one clear message each.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # A100, H100 and B200 as machine code, and the oldest as PTX for whatever comes between and after.
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90a-real;100a-real;80-virtual" CACHE STRING "Architectures of device code")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "FASTKV_CUDA=ON needs nvcc, which is not in PATH: install CUDA 13, or let tools/cuda-toolkit "
    "bring it and give -DCMAKE_CUDA_COMPILER=\"$(tools/cuda-toolkit)/bin/nvcc\"")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13)
  message(FATAL_ERROR "FASTKV_CUDA=ON needs CUDA 13, ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
find_package(CUDAToolkit 13 REQUIRED)
foreach(library cudart_static cublasLt)
  if(NOT TARGET CUDA::${library})
    message(FATAL_ERROR "FASTKV_CUDA=ON needs ${library}, which is not in ${CUDAToolkit_LIBRARY_ROOT}")
  endif()
endforeach()

# Of the parts that have CUDA in them. CMake 3.25 drops CMAKE_CUDA_STANDARD 20 without a word, so -std is given here.
add_library(fastkv_cuda_flags INTERFACE)
target_compile_options(fastkv_cuda_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr;-lineinfo;--Werror=cross-execution-space-call;-Xcompiler=-Wall,-Wextra,-fvisibility=hidden>")
target_include_directories(fastkv_cuda_flags SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(fastkv_cuda_flags INTERFACE CUDA::cudart_static CUDA::cublasLt)
