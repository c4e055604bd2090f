"""gunicorn -c antenna/gunicorn.py antenna.asgi:application"""

import os

bind = os.environ.get("ANTENNA_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("ANTENNA_WEB_PROCESSES", "2"))
worker_class = "uvicorn_worker.UvicornWorker"
preload_app = os.environ.get("ANTENNA_PRELOAD", "") == "1"
timeout = 120
graceful_timeout = 5
accesslog = None
