from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from main.views import router


class Stub(APIView):
    """The control: the same answer, with nothing behind it."""

    def post(self, request: Request) -> Response:
        body = {"error": "Task queue temporarily unavailable", "retry_after": 1.0}
        return Response(body, status=503, headers={"Retry-After": "1"})


urlpatterns = [path("api/v2/stub/", Stub.as_view()), path("api/v2/", include(router.urls))]
