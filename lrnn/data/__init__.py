"""Audio in and out: files, corpora, mixing, the denoiser's front end, and metrics.

Files: audio (reading, writing, resampling), spectrogram (pictures).
Corpora: sources and mix (recordings mixed on the fly), ndns (ready mixtures), synthetic (made of nothing).
Front end: stft (whole clips), stft_stream (hop by hop), denoiser (both around a Program).
Metrics: metrics (SI-SNR, losses), perceptual (PESQ, STOI), dnsmos, figures (all of them by name).
Evaluation: evaluate (a folder, clip by clip), workers (processes), score_file (CSV), summary, bootstrap.
"""
