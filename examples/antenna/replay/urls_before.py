from django.urls import include, path

from .before import router

urlpatterns = [path("api/v2/", include(router.urls))]
