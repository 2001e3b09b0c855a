"""Audio in and out: files, corpora, mixing, front ends of denoiser and keyword spotter, and metrics.

Files: audio (reading, writing, resampling), spectrogram (pictures).
Corpora: sources, index and mix (recordings mixed on the fly), augment and reverb (what else happens to them),
ndns (ready mixtures), stream (numbered clips to train on), synthetic (made of nothing), faults (bad files).
Front end: stft (whole clips), stft_stream (hop by hop), denoiser (both around a Program).
Keywords: keywords (Speech Commands), keyword_mix and spec_augment (what happens to clips), frontend (log-mel
and raw frames), detector (from scores to words), spotter (all around a Program), evaluate_keywords.
Metrics: metrics (SI-SNR, losses), perceptual (PESQ, STOI), dnsmos, figures (all of them by name).
Evaluation: evaluate (a folder, clip by clip), workers (processes), score_file (CSV), summary, bootstrap.
"""
