#!/bin/bash
# bash laptop.sh, on any machine that sees the folder (here by NFS) and has the same version; with
# several GPUs once for each of them: CUDA_VISIBLE_DEVICES=1 bash laptop.sh
cd /mnt/segsweep || exit 2
exec nice .venv/bin/python -m segsweep work --sweep demo --until 08:00 --lease 15
