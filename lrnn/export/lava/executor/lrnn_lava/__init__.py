"""An exported lrnn program on Lava's fixed-point simulator, and its comparison with golden integers.

Needs lava-nc 0.10, numpy and scipy; neither torch nor lrnn. `python -m lrnn_lava FOLDER` verifies a folder
that `lrnn export lava` wrote. `Network(Export.read(folder))` builds the network to connect it to other Lava
Processes.
"""
