# The page on a CPU, with its corrections in a volume:
#
#   docker build -t nbdt .
#   docker run --rm -p 127.0.0.1:7860:7860 -v nbdt:/data nbdt
#   docker run --rm -v "$PWD:/work" -w /work nbdt explain photo.jpg     # or any other command
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1

# PyTorch by itself: a layer of its own, the CPU build, kept when only our code has changed.
WORKDIR /source
COPY constraints.txt ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu \
      -c constraints.txt torch torchvision

COPY pyproject.toml README.md LICENSE ./
COPY nbdt nbdt/
COPY hierarchies hierarchies/
COPY train train/
COPY explain explain/
COPY demo demo/
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu \
      -c constraints.txt '.[demo,postgres]' && rm -rf /source/*

# Nobody in particular, who may write to the volume and to their own home.
RUN useradd --create-home --uid 10001 nbdt && mkdir /data && chown nbdt:nbdt /data
USER nbdt
WORKDIR /home/nbdt
VOLUME /data
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/health', timeout=4)"]

# Inside the container it listens everywhere; who reaches it is decided by -p, as above, and --auth.
ENTRYPOINT ["nbdt"]
CMD ["demo", "--host", "0.0.0.0", "--port", "7860", "--store", "/data/corrections.sqlite"]
