# A server of a model, of packages from PyPI alone:
#
#   docker build -t retinue .
#   docker run --rm -p 8000:8000 -v ./runs/finetune:/models/flowers:ro \
#     -e RETINUE_API_KEYS=… --read-only --tmpfs /tmp --cap-drop ALL retinue /models/flowers
#
# On Linux PyPI's torch brings CUDA with it, which takes gigabytes; a CPU build is taken by
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu.
FROM python:3.13-slim AS build
ARG TORCH_INDEX=
ARG EXTRAS=serve,openvino
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/retinue
RUN /opt/retinue/bin/pip install ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN /opt/retinue/bin/pip install "/source[${EXTRAS}]"

FROM python:3.13-slim
COPY --from=build /opt/retinue /opt/retinue
# Nothing is written but to /tmp; nobody has no home.
ENV PATH=/opt/retinue/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /models
USER nobody
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["retinue", "serve", "--host", "0.0.0.0", "--log", "json"]
CMD ["/models"]
