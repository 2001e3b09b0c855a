// Export macro for the C ABI. The libraries are built with hidden visibility: only what carries LRNN_API is a symbol.
#pragma once

#if defined(_WIN32)
#define LRNN_EXPORT __declspec(dllexport)
#else
#define LRNN_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
#define LRNN_API extern "C" LRNN_EXPORT
#else
#define LRNN_API LRNN_EXPORT
#endif
