"""Audio in and out: files, corpora, mixing, the denoiser's front end, and metrics.

Readers and mixers: audio, sources, mix, ndns, synthetic. Front end: stft (whole clips), stft_stream (sample
by sample). A Program with its front end around it: denoiser. Metrics: metrics.
"""
